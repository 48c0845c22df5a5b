"""Give a Qwen3 language model a codec's audio vocabulary: once, offline, before any training.

    python recipes/extend_vocabulary.py --model Qwen/Qwen3-0.6B --codec runs/codec --output runs/lm_base

Or start from a configuration, with a tokenizer trained on the spot and random weights:

    python recipes/extend_vocabulary.py --from_config recipes/configs/tiny/language_model.yaml \\
        --texts 'runs/demo/corpus/*/*.json' --codec runs/demo/codec --output runs/demo/lm_base

The result is a plain Qwen3 checkpoint with the codec inside; every training recipe starts from it. A checkpoint is grown file by file, so
that 8B needs no 16 GB of memory; --dry_run prints rows, ids, bytes and memory from its config.json alone.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import parse_arguments, run_main

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alm.growing import RowMap
    from alm.growth_plan import GrowthPlan
    from codec.base import Codec

DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class ExtendArguments:
    codec: str = field(metadata={"help": "codec whose tokens are added: folder of recipes/train_codec.py, or a Hub id"})
    output: str = field(metadata={"help": "folder of the new checkpoint"})
    model: str | None = field(
        default=None, metadata={"help": "Qwen3 checkpoint to start from (safetensors): Hub id or folder"}
    )
    from_config: str | None = field(
        default=None, metadata={"help": "YAML of Qwen3Config's numbers to start from random weights instead"}
    )
    texts: list[str] = field(
        default_factory=list,
        metadata={"help": "with --from_config: JSON, JSON lines, CSV or text files (globs) to train the tokenizer on"},
    )
    initialisation: str = field(
        default="codebook",
        metadata={
            "help": "new embedding rows: codebook (near codes, near rows), gaussian, or mean (Transformers' way)",
            "choices": ["codebook", "gaussian", "mean"],
        },
    )
    dtype: str | None = field(
        default=None, metadata={"help": f"type of the weights: {', '.join(DTYPES)}; default: as they are"}
    )
    seed: int = field(default=0, metadata={"help": "seed of new weights and rows"})
    overwrite_output: bool = field(default=False, metadata={"help": "replace OUTPUT where it exists"})
    dry_run: bool = field(
        default=False, metadata={"help": "print rows, ids, files and memory, write nothing, and exit"}
    )

    def __post_init__(self) -> None:
        if (self.model is None) == (self.from_config is None):
            raise ValueError("give either --model or --from_config")
        if self.from_config and not self.texts:
            raise ValueError("--from_config needs --texts to train its tokenizer on")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"--dtype is one of {', '.join(DTYPES)}, got {self.dtype}")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(ExtendArguments, argv, description=__doc__)
    from itertools import chain

    from alm.contract import require_no_faults
    from alm.data.example import DataError
    from alm.doctor import codec_check, examine
    from codec.zoo import load_codec

    output = Path(args.output)
    if output.exists() and not args.overwrite_output and not args.dry_run:
        raise DataError(f"{output} exists; give another --output, or --overwrite_output to replace it")
    codec = load_codec(args.codec)
    partial = output.with_name(output.name + ".partial")
    if not args.dry_run:
        shutil.rmtree(partial, ignore_errors=True)
    (grow_new_model if args.from_config else grow_checkpoint_folder)(args, codec, partial)
    if args.dry_run:
        return
    # everything that a later step will ask for, asked once here: files, ids, hash, codec
    require_no_faults(chain(examine(partial), codec_check(partial).faults), str(partial))
    if output.exists():
        shutil.rmtree(output)
    partial.rename(output)
    print(f"saved to {output}")


def grow_checkpoint_folder(args: ExtendArguments, codec: "Codec", target: Path) -> None:
    """Grow the checkpoint of `--model` file by file."""
    import torch

    from alm.checkpoint_files import local_folder
    from alm.growing_folder import grow_checkpoint
    from alm.growth_plan import plan_growth

    folder = local_folder(str(args.model), weights=not args.dry_run)
    plan = plan_growth(folder, codec, getattr(torch, args.dtype) if args.dtype else None)
    print_rows(plan.rows, plan.tied, plan.parameters, plan.dtype, codec, args)
    print_files(plan)
    if not args.dry_run:
        vocabulary = grow_checkpoint(plan, target, codec, args.initialisation, args.seed, args.codec)
        print(f"vocabulary hash  {vocabulary.hash}")


def grow_new_model(args: ExtendArguments, codec: "Codec", target: Path) -> None:
    """Grow a model of random weights in memory."""
    import torch

    from alm.checkpoint import save_checkpoint
    from alm.growing import RowMap, grow_vocabulary
    from alm.processing import AudioLanguageProcessor

    model, tokenizer = new_model(args)
    if args.dtype:
        model = model.to(getattr(torch, args.dtype))
    rows = RowMap(len(tokenizer), model.config.vocab_size, codec.num_codebooks * codec.codebook_size)
    vocabulary = grow_vocabulary(model, tokenizer, codec, args.initialisation, args.seed)
    print_rows(rows, vocabulary.tied, sum(p.numel() for p in model.parameters()), model.dtype, codec, args)
    print(f"vocabulary hash  {vocabulary.hash}")
    if not args.dry_run:
        processor = AudioLanguageProcessor(tokenizer, vocabulary, model.config.max_position_embeddings, args.codec)
        processor.codec = codec
        save_checkpoint(model, processor, target)


def new_model(args: ExtendArguments) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A randomly initialised Qwen3 and a tokenizer trained on the given texts."""
    import torch
    import yaml
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from alm.contract import ROW_MULTIPLE
    from alm.data.example import DataError
    from alm.tokenizer import read_texts, train_tokenizer

    try:
        numbers: dict[str, Any] = yaml.safe_load(Path(str(args.from_config)).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"--from_config {args.from_config}: {error}") from error
    unknown = sorted(numbers.keys() - Qwen3Config().to_dict().keys())
    if unknown:
        raise DataError(f"--from_config {args.from_config}: {', '.join(unknown)} unknown to Qwen3Config")
    tokenizer = train_tokenizer(read_texts(args.texts), numbers["vocab_size"])
    numbers["vocab_size"] = -(-len(tokenizer) // ROW_MULTIPLE) * ROW_MULTIPLE
    torch.manual_seed(args.seed)
    return Qwen3ForCausalLM(Qwen3Config(**numbers)), tokenizer


def print_rows(
    rows: "RowMap", tied: bool, parameters: int, dtype: "torch.dtype", codec: "Codec", args: ExtendArguments
) -> None:
    start = rows.text_ids
    print(f"model            {args.model or args.from_config}, {parameters:,} parameters when grown, {str(dtype)[6:]}")
    print(
        f"codec            {args.codec}, fingerprint {codec.fingerprint}, {codec.tokens_per_second:g} tokens per second"
    )
    print(
        f"embedding rows   {rows.rows_before:,} → {rows.rows:,} ({'tied to' if tied else 'apart from'} the output head)"
    )
    print(f"text ids         0 … {start - 1:,}")
    print(f"special ids      {start:,} start, {start + 1:,} end, {start + 2:,} placeholder")
    print(f"audio ids        {rows.first_id:,} … {rows.end - 1:,} ({codec.num_codebooks} × {codec.codebook_size:,})")
    print(f"rows without id  {rows.rows - rows.end:,}")
    print(f"initialisation   {args.initialisation}")


def print_files(plan: "GrowthPlan") -> None:
    rewritten = [shard for shard in plan.shards if not shard.copied]
    largest = max(shard.memory for shard in rewritten)
    print(
        f"files            {len(rewritten)} of {len(plan.shards)} rewritten, the others copied; {plan.bytes / 1e9:.2f} GB written"
    )
    print(
        f"memory           {plan.memory / 1e9:.2f} GB beside Python's own: {largest / 1e9:.2f} for the largest file rewritten and what "
        f"changes in it, {plan.work / 1e9:.2f} for the new rows"
    )
    if not plan.weights_here:
        print("                 planned from config.json alone: the weights are not here")
    if not plan.tokenizer_here:
        print("                 no tokenizer here: the ids are those of Qwen3's")


if __name__ == "__main__":
    run_main(main)
