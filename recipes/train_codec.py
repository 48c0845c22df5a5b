"""Train EntangleCodec, stage 1 (eq. 8): flow, contrastive and VQ losses together, on audio with captions.

    accelerate launch recipes/train_codec.py --config recipes/configs/paper/train_codec.yaml --audio DATA --output_dir DIR

DATA is a folder with metadata.csv (file_name,caption), such a CSV file, or a data set of the Hub with an audio and a caption column;
several are mixed (--audio A B C --weights 3 1 1).
An interrupted run goes on where its last checkpoint stands when the same command is given again. --dry_run --machine
recipes/configs/accelerate/eight_gpus.yaml --gpu_memory 80 prints the plan for that machine on any other, without data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import parse_with_trainer_arguments, read_numbers, run_main
from alm.training.arguments import CODEC_DEFAULTS, MachineArguments, codec_trainer_arguments

if TYPE_CHECKING:
    from alm.training.layout import Layout
    from codec import EntangleCodecForPreTraining
    from codec.data import CaptionCollator, Clip, CropDataset
    from codec.training import CodecTrainer


@dataclass
class CodecArguments(MachineArguments):
    audio: list[str] = field(
        metadata={"help": "folders with metadata.csv, CSV files (file_name,caption), or Hub data sets"}
    )
    output_dir: str = field(metadata={"help": "folder of the trained codec"})
    weights: list[float] = field(
        default_factory=list, metadata={"help": "a share for each --audio; default: by number of clips"}
    )
    caption_column: str | None = field(
        default=None,
        metadata={"help": "column of the text to align with; default: caption or text (Table 4: transcripts)"},
    )
    contrastive_weight: float | None = field(
        default=None, metadata={"help": "weight of the contrastive loss; 0: without (Table 4); default: the codec's"}
    )
    ema_decay: float | None = field(
        default=None, metadata={"help": "save a moving average of the weights, say 0.9999; default: none"}
    )
    codec: str = field(
        default="recipes/configs/paper/codec.yaml", metadata={"help": "YAML of EntangleCodecConfig's numbers"}
    )
    split: str = field(default="train", metadata={"help": "split of a Hub data set"})
    streaming: bool = field(
        default=False, metadata={"help": "read Hub data sets (Parquet) where they are, instead of copying them first"}
    )
    crop_seconds: float = field(default=10.0, metadata={"help": "longest crop (B.1)"})
    validation_clips: int = field(default=0, metadata={"help": "clips held out for the validation loss"})
    encoder_learning_rate: float | None = field(
        default=None, metadata={"help": "learning rate of encoder and quantizer; default: --learning_rate"}
    )
    restart_every: int = field(default=20, metadata={"help": "steps between restarts of dead codes"})
    restart_threshold: float = field(
        default=0.1, metadata={"help": "share of the mean rate of use below which a code counts as dead"}
    )
    restart_share: float = field(
        default=0.7, metadata={"help": "part of the run in which dead codes are restarted; 0: never"}
    )
    start_frames_per_code: int = field(
        default=32, metadata={"help": "frames per code whose clusters start the codebook; 0: start at random"}
    )
    max_missing: float = field(default=0.05, metadata={"help": "share of clips that may be missing or unreadable"})
    seed: int = field(default=42, metadata={"help": "seed of weights, crops, noise and order"})
    overwrite_output: bool = field(default=False, metadata={"help": "start afresh where OUTPUT_DIR holds a run"})


# Table 5; batch arithmetic: 8 GPUs × 32 = 256 with the paper's accumulation of 4 inside the 32 (docs/paper.md)
DEFAULTS = {
    **CODEC_DEFAULTS,
    "learning_rate": 2e-4,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "weight_decay": 1e-2,
    "max_grad_norm": 1.0,
    "max_steps": 500_000,
    "warmup_steps": 2_000,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
}


# flags with which alone an interrupted run goes on
KEPT = ("split", "caption_column", "weights", "seed", "crop_seconds", "validation_clips", "ema_decay")


def main(argv: list[str] | None = None) -> None:
    args, training = parse_with_trainer_arguments(CodecArguments, argv, __doc__, codec_trainer_arguments, DEFAULTS)

    from transformers import set_seed

    from alm.training import run
    from alm.training.codec_run import require_same_begin, settle_layout
    from alm.training.spread import require_same_spread
    from codec.data import CropDataset

    layout = settle_layout(args, training)
    numbers = read_numbers(args.codec)
    if args.contrastive_weight is not None:
        numbers["contrastive_weight"] = args.contrastive_weight
    if args.machine:
        dry_run(numbers, None, args, training, layout)
        return
    clips, held_out, digest = read_sources(args, numbers)
    output = Path(args.output_dir)
    if args.dry_run:
        dry_run(numbers, len(clips), args, training, layout)
        return

    checkpoint = run.begin(output, training.distributed_state, args.overwrite_output)
    require_same_spread(checkpoint, training, draws=True)
    require_same_begin(args, training, checkpoint, digest, KEPT, numbers=numbers)
    set_seed(args.seed)
    model, collate = build(checkpoint, output, numbers, clips, args, training)
    spec = model.config.mel_spec
    crops = CropDataset(clips, spec, args.crop_seconds, args.seed, args.max_missing)
    if checkpoint is None and args.start_frames_per_code:
        start(model, crops, collate, args)
    trainer = make_trainer(model, crops, held_out, collate, checkpoint, args, training)
    if run.is_complete(checkpoint, training.max_steps):
        trainer.restore(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        save(trainer, collate, args)


def read_sources(args: CodecArguments, numbers: dict[str, Any]) -> "tuple[Sequence[Clip], Sequence[Clip], str]":
    """Clips to train on, clips held out (the first `validation_clips`, shared evenly among the sources), and a digest of all."""
    from alm.training.codec_run import data_digest
    from codec.data import read_clips
    from codec.mixing import mix_clips, split_off

    sources = [read_clips(source, args.split, args.caption_column, args.streaming) for source in args.audio]
    each = -(-args.validation_clips // len(sources))
    parts = [split_off(source, each) for source in sources]
    held_out = [clip for first, _ in parts for clip in first][: args.validation_clips]
    return mix_clips([rest for _, rest in parts], args.weights, args.seed), held_out, data_digest(sources)


def build(
    checkpoint: str | None,
    output: Path,
    numbers: dict[str, Any],
    clips: "Sequence[Clip]",
    args: CodecArguments,
    training: Any,
) -> "tuple[EntangleCodecForPreTraining, CaptionCollator]":
    """The model and its captions' tokenizer: new ones, fitted to the data, or those of the run that goes on."""
    from alm.training.codec_run import step_lines
    from alm.training.layout import Layout
    from codec import EntangleCodecConfig, EntangleCodecForPreTraining
    from codec.data import CaptionCollator, mel_statistics
    from codec.mixing import captions_of
    from codec.text import CaptionTokenizer

    config = EntangleCodecConfig(**numbers)
    if checkpoint is None:
        mean, std = mel_statistics(clips, config.mel_spec)
        tokenizer = CaptionTokenizer.train(captions_of(clips), config.text_vocab_size, config.text_max_length)
        config = EntangleCodecConfig(**{**numbers, "mel": {**config.mel, "mean": mean, "std": std}})
        if training.distributed_state.is_main_process:
            tokenizer.save(output)
            config.save_pretrained(output)
            steps = step_lines(args, training, Layout.of(training), len(clips))
            print(*plan(numbers, len(clips)), *steps, sep="\n")
    else:
        if training.distributed_state.is_main_process:
            print(f"going on from {checkpoint}")
        tokenizer = CaptionTokenizer.load(output, config.text_max_length)
        config = EntangleCodecConfig.from_pretrained(output)
    return EntangleCodecForPreTraining(config), CaptionCollator(tokenizer)


def start(
    model: "EntangleCodecForPreTraining", crops: "CropDataset", collate: "CaptionCollator", args: CodecArguments
) -> None:
    """Start the codebook on clusters of the data's frames."""
    import torch

    from codec.codebook import start_codebook

    order = torch.randperm(len(crops), generator=torch.Generator().manual_seed(args.seed)).tolist()
    if getattr(crops.clips, "in_order", False):
        order = range(len(crops))
    start_codebook(model, (collate([crops[i]]) for i in order), args.start_frames_per_code)


def make_trainer(
    model: "EntangleCodecForPreTraining",
    crops: "CropDataset",
    held_out: "Sequence[Clip]",
    collate: "CaptionCollator",
    checkpoint: str | None,
    args: CodecArguments,
    training: Any,
) -> "CodecTrainer":
    """Trainer with its callbacks."""
    from alm.training.codec_run import resumable
    from codec.data import CropDataset
    from codec.ema import MovingAverage
    from codec.training import CodecTrainer, SetEpoch

    callbacks: list[Any] = [SetEpoch(crops)]
    if args.ema_decay is not None:
        callbacks.append(MovingAverage(model, args.ema_decay, checkpoint))
    validation = CropDataset(held_out, crops.spec, args.crop_seconds, args.seed) if held_out else None
    trainer: CodecTrainer = resumable(CodecTrainer)(
        model=model,
        args=training,
        train_dataset=crops,
        eval_dataset=validation,
        data_collator=collate,
        callbacks=callbacks,
        encoder_learning_rate=args.encoder_learning_rate,
        restart_every=args.restart_every,
        restart_threshold=args.restart_threshold,
        restart_until=int(args.restart_share * training.max_steps),
    )
    return trainer


def save(trainer: "CodecTrainer", collate: "CaptionCollator", args: CodecArguments) -> None:
    """The codec, the stage-1 model with its caption tower and the manifest."""
    from alm.training.codec_run import finish
    from codec import EntangleCodec
    from codec.ema import put_average

    output, model = Path(args.output_dir), trainer.model
    put_average(trainer)
    model.save_pretrained(output / "pretraining")
    collate.caption_tokenizer.save(output / "pretraining")
    codec = EntangleCodec(model.codec)
    codec.save_pretrained(output)
    if collate.truncated:
        print(f"{collate.truncated} captions were cut at {model.config.text_max_length} tokens")
    finish(trainer, Path(__file__).name, args, {"fingerprint": codec.fingerprint})
    print(f"codec saved to {output} (fingerprint {codec.fingerprint})")


def dry_run(numbers: dict[str, Any], clips: int | None, args: CodecArguments, training: Any, layout: "Layout") -> None:
    """Print the plan; no weights are made."""
    from alm.training.codec_run import look
    from codec import EntangleCodecConfig
    from codec.planning import stage_one_bytes

    batch = training.per_device_train_batch_size
    sizes = (batch, args.crop_seconds, layout.half_precision)
    memory = stage_one_bytes(EntangleCodecConfig(**numbers), *sizes, averaged=args.ema_decay is not None)
    look(plan(numbers, clips), memory, args, training, layout, clips)


def plan(numbers: dict[str, Any], clips: int | None) -> list[str]:
    """What would be trained on what, in words."""
    import torch

    from codec import EntangleCodecConfig, EntangleCodecForPreTraining

    config = EntangleCodecConfig(**numbers)
    with torch.device("meta"):
        model = EntangleCodecForPreTraining(config)
    sizes = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in model.codec.named_children()
        if part is not None
    }
    sizes["text tower"] = sum(p.numel() for p in model.text_tower.parameters())
    return [
        f"clips            {'not read' if clips is None else f'{clips:,}'}",
        *(f"{name:16} {size / 1e6:,.2f} M parameters" for name, size in sizes.items()),
        f"tokens           {config.frame_rate:g} per second, codebook {config.codebook_size:,} × {config.codebook_dim}",
    ]


if __name__ == "__main__":
    run_main(main)
