"""Give a Qwen3 language model a codec's audio vocabulary: once, offline, before any training.

    python recipes/extend_vocabulary.py --model Qwen/Qwen3-0.6B --codec runs/codec --output runs/lm_base

Or start from a configuration, with a tokenizer trained on the spot and random weights:

    python recipes/extend_vocabulary.py --from_config recipes/configs/tiny/language_model.yaml \\
        --texts 'runs/demo/corpus/*/*.json' --codec runs/demo/codec --output runs/demo/lm_base

The result is a plain Qwen3 checkpoint with the codec inside; every training recipe starts from it.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import parse_arguments, run_main

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from codec.base import Codec

DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class ExtendArguments:
    codec: str = field(metadata={"help": "codec whose tokens are added: folder of recipes/train_codec.py, or a Hub id"})
    output: str = field(metadata={"help": "folder of the new checkpoint"})
    model: str | None = field(default=None, metadata={"help": "Qwen3 checkpoint to start from: Hub id or folder"})
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
    dry_run: bool = field(default=False, metadata={"help": "print rows and ids, write nothing, and exit"})

    def __post_init__(self) -> None:
        if (self.model is None) == (self.from_config is None):
            raise ValueError("give either --model or --from_config")
        if self.from_config and not self.texts:
            raise ValueError("--from_config needs --texts to train its tokenizer on")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"--dtype is one of {', '.join(DTYPES)}, got {self.dtype}")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(ExtendArguments, argv, description=__doc__)
    import torch

    from alm.checkpoint import load_checkpoint, save_checkpoint
    from alm.data.example import DataError
    from alm.growing import grow_vocabulary
    from alm.processing import AudioLanguageProcessor
    from codec.zoo import load_codec

    output = Path(args.output)
    if output.exists() and not args.overwrite_output and not args.dry_run:
        raise DataError(f"{output} exists; give another --output, or --overwrite_output to replace it")
    codec = load_codec(args.codec)
    model, tokenizer = new_model(args) if args.from_config else pretrained_model(args)
    if args.dtype:
        model = model.to(getattr(torch, args.dtype))
    before = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    vocabulary = grow_vocabulary(model, tokenizer, codec, args.initialisation, args.seed)
    print_summary(model, before, vocabulary, codec, args)
    if args.dry_run:
        return

    processor = AudioLanguageProcessor(tokenizer, vocabulary, model.config.max_position_embeddings, args.codec)
    partial = output.with_name(output.name + ".partial")
    processor.codec = codec
    shutil.rmtree(partial, ignore_errors=True)
    save_checkpoint(model, processor, partial)
    load_checkpoint(partial)  # everything that a later step will ask for, asked once here: files, ids, hash, codec
    if output.exists():
        shutil.rmtree(output)
    partial.rename(output)
    print(f"saved to {output}")


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


def pretrained_model(args: ExtendArguments) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A Qwen3 checkpoint and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alm.data.example import DataError

    try:
        tokenizer = AutoTokenizer.from_pretrained(args.model)
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto")
    except OSError as error:
        raise DataError(f"--model {args.model}: {str(error).splitlines()[0]}") from error
    return model, tokenizer


def print_summary(
    model: "PreTrainedModel", before: tuple[int, int], vocabulary: Any, codec: "Codec", args: ExtendArguments
) -> None:
    rows, ids = before
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    parameters = sum(p.numel() for p in model.parameters())
    last = vocabulary.first_id + vocabulary.size - 1
    print(f"model            {args.model or args.from_config}, {parameters:,} parameters, {str(model.dtype)[6:]}")
    print(
        f"codec            {args.codec}, fingerprint {codec.fingerprint}, {codec.tokens_per_second:g} tokens per second"
    )
    print(
        f"embedding rows   {rows:,} → {model.config.vocab_size:,} ({'tied to' if tied else 'apart from'} the output head)"
    )
    print(f"text ids         0 … {ids - 1:,}")
    print(
        f"special ids      {vocabulary.start_id:,} start, {vocabulary.end_id:,} end, {vocabulary.placeholder_id:,} placeholder"
    )
    print(
        f"audio ids        {vocabulary.first_id:,} … {last:,} ({vocabulary.num_codebooks} × {vocabulary.codebook_size:,})"
    )
    print(f"initialisation   {args.initialisation}")
    print(f"vocabulary hash  {vocabulary.hash}")


if __name__ == "__main__":
    run_main(main)
