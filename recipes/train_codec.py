"""Train EntangleCodec, stage 1 (eq. 8): flow, contrastive and VQ losses together, on audio with captions.

    accelerate launch recipes/train_codec.py --config recipes/configs/paper/train_codec.yaml --audio DATA --output_dir DIR

DATA is a folder with metadata.csv (file_name,caption), such a CSV file, or a data set of the Hub with an audio and a caption column.
An interrupted run goes on where its last checkpoint stands when the same command is given again.
"""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alm.arguments import parse_with_trainer_arguments, read_numbers, run_main


@dataclass
class CodecArguments:
    audio: str = field(metadata={"help": "folder with metadata.csv, CSV file (file_name,caption), or Hub data set"})
    output_dir: str = field(metadata={"help": "folder of the trained codec"})
    codec: str = field(
        default="recipes/configs/paper/codec.yaml", metadata={"help": "YAML of EntangleCodecConfig's numbers"}
    )
    split: str = field(default="train", metadata={"help": "split of a Hub data set"})
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
    max_unreadable: float = field(default=0.05, metadata={"help": "share of unreadable clips that stops the run"})
    seed: int = field(default=42, metadata={"help": "seed of weights, crops, noise and order"})
    overwrite_output: bool = field(default=False, metadata={"help": "start afresh where OUTPUT_DIR holds a run"})
    dry_run: bool = field(default=False, metadata={"help": "print the plan and stop"})


# Table 5; batch arithmetic: 8 GPUs × 32 = 256 with the paper's accumulation of 4 inside the 32 (docs/paper.md)
DEFAULTS = {
    "learning_rate": 2e-4,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "weight_decay": 1e-2,
    "max_grad_norm": 1.0,
    "max_steps": 500_000,
    "warmup_steps": 2_000,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
    "save_steps": 1_000,
    "save_total_limit": 2,
    "logging_steps": 50,
    "report_to": "none",
    "remove_unused_columns": False,
}


def trainer_arguments() -> type:
    from transformers import TrainingArguments

    return TrainingArguments


def main(argv: list[str] | None = None) -> None:
    args, training = parse_with_trainer_arguments(CodecArguments, argv, __doc__, trainer_arguments, DEFAULTS)

    import torch
    from transformers import set_seed

    from alm.training import run
    from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecForPreTraining
    from codec.codebook import start_codebook
    from codec.data import CaptionCollator, CropDataset, mel_statistics, read_clips
    from codec.text import CaptionTokenizer
    from codec.training import CodecTrainer, SetEpoch

    clips = read_clips(args.audio, args.split)
    held_out, clips = clips[: args.validation_clips], clips[args.validation_clips :]
    numbers = read_numbers(args.codec)
    config = EntangleCodecConfig(**numbers)
    output = Path(args.output_dir)
    if args.dry_run:
        print(plan(config, len(clips), args, training))
        return

    ranks = training.distributed_state
    if args.overwrite_output and ranks.is_main_process:
        run.clear(output)
    ranks.wait_for_everyone()
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = run.starting_point(output, "auto")
    set_seed(args.seed)
    if checkpoint is None:
        mean, std = mel_statistics(clips, config.mel_spec)
        tokenizer = CaptionTokenizer.train((c.caption for c in clips), config.text_vocab_size, config.text_max_length)
        config = EntangleCodecConfig(**{**numbers, "mel": {**config.mel, "mean": mean, "std": std}})
        if ranks.is_main_process:
            tokenizer.save(output)
            config.save_pretrained(output)
            print(plan(config, len(clips), args, training))
    else:
        print(f"going on from {checkpoint}")
        tokenizer = CaptionTokenizer.load(output, config.text_max_length)
        config = EntangleCodecConfig.from_pretrained(output)
    model = EntangleCodecForPreTraining(config)

    collate = CaptionCollator(tokenizer)
    crops = CropDataset(clips, config.mel_spec, args.crop_seconds, args.seed, args.max_unreadable)
    validation = CropDataset(held_out, config.mel_spec, args.crop_seconds, args.seed) if held_out else None
    if checkpoint is None and args.start_frames_per_code:
        order = torch.randperm(len(crops), generator=torch.Generator().manual_seed(args.seed)).tolist()
        start_codebook(model, (collate([crops[i]]) for i in order), args.start_frames_per_code)
    trainer = CodecTrainer(
        model=model,
        args=training,
        train_dataset=crops,
        eval_dataset=validation,
        data_collator=collate,
        callbacks=[SetEpoch(crops)],
        encoder_learning_rate=args.encoder_learning_rate,
        restart_every=args.restart_every,
        restart_threshold=args.restart_threshold,
        restart_until=int(args.restart_share * training.max_steps),
    )
    if run.is_complete(checkpoint, training.max_steps):
        trainer._load_from_checkpoint(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    if not trainer.is_world_process_zero():
        return
    model.save_pretrained(output / "pretraining")
    tokenizer.save(output / "pretraining")
    codec = EntangleCodec(model.codec)
    codec.save_pretrained(output)
    run.write_log(output, trainer.state.log_history)
    for reason in crops.unreadable.values():
        print(f"unreadable, replaced: {reason}")
    if collate.truncated:
        print(f"{collate.truncated} captions were cut at {config.text_max_length} tokens")
    parts = {
        "recipe": Path(__file__).name,
        "fingerprint": codec.fingerprint,
        "arguments": asdict(args),
        "clips": len(clips),
    }
    run.write_manifest(output, {**parts, "unreadable": list(crops.unreadable.values())}, sys.argv)
    print(f"codec saved to {output} (fingerprint {codec.fingerprint})")


def plan(config: Any, clips: int, args: CodecArguments, training: Any) -> str:
    """What a run would do, in words."""
    import torch

    from codec import EntangleCodecForPreTraining

    with torch.device("meta"):
        model = EntangleCodecForPreTraining(config)
    sizes = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in model.codec.named_children()
        if part is not None
    }
    sizes["text tower"] = sum(p.numel() for p in model.text_tower.parameters())
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps * training.world_size
    lines = [
        f"clips            {clips:,}",
        *(f"{name:16} {size / 1e6:,.2f} M parameters" for name, size in sizes.items()),
        f"tokens           {config.frame_rate:g} per second, codebook {config.codebook_size:,} × {config.codebook_dim}",
        f"effective batch  {batch} crops of up to {args.crop_seconds:g} s on {training.world_size} process(es)",
        f"steps            {training.max_steps:,} ({training.max_steps * batch / max(clips, 1):,.1f} epochs)",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
