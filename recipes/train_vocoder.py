"""Train the Vocos vocoder on a codec's mel and put it into the codec's folder.

    accelerate launch recipes/train_vocoder.py --config recipes/configs/paper/train_vocoder.yaml --codec CODEC --audio DATA \
        --output_dir DIR

DATA as for recipes/train_codec.py (captions are not used). The losses here are log-mel and multi-resolution spectra, without
discriminators. An interrupted run goes on where its last checkpoint stands when the same command is given again.
"""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from alm.arguments import parse_with_trainer_arguments, read_numbers, run_main


@dataclass
class VocoderArguments:
    codec: str = field(metadata={"help": "folder of the codec whose mel the vocoder learns; it receives the vocoder"})
    audio: str = field(metadata={"help": "folder with metadata.csv, CSV file (file_name,caption), or Hub data set"})
    output_dir: str = field(metadata={"help": "folder of the vocoder alone, and of its checkpoints"})
    vocoder: str = field(
        default="recipes/configs/paper/vocoder.yaml", metadata={"help": "YAML of VocosConfig's numbers"}
    )
    split: str = field(default="train", metadata={"help": "split of a Hub data set"})
    crop_seconds: float = field(default=1.0, metadata={"help": "length of the training segments"})
    mel_weight: float = field(default=1.0, metadata={"help": "weight of the log-mel loss beside the spectral loss"})
    max_unreadable: float = field(default=0.05, metadata={"help": "share of unreadable clips that stops the run"})
    seed: int = field(default=42, metadata={"help": "seed of weights, crops and order"})
    overwrite_output: bool = field(default=False, metadata={"help": "start afresh where OUTPUT_DIR holds a run"})
    dry_run: bool = field(default=False, metadata={"help": "print the plan and stop"})


DEFAULTS = {  # vocos/configs/vocos.yaml of the package
    "learning_rate": 5e-4,
    "adam_beta1": 0.8,
    "adam_beta2": 0.9,
    "lr_scheduler_type": "cosine",
    "max_steps": 1_000_000,
    "per_device_train_batch_size": 16,
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
    args, training = parse_with_trainer_arguments(VocoderArguments, argv, __doc__, trainer_arguments, DEFAULTS)

    from transformers import Trainer, set_seed

    from alm.training import run
    from codec import EntangleCodec, VocosConfig, VocosModel
    from codec.data import CropDataset, read_clips
    from codec.training import SetEpoch
    from codec.vocoder_training import VocoderTraining

    codec = EntangleCodec.from_pretrained(args.codec)
    numbers = read_numbers(args.vocoder)
    set_seed(args.seed)
    vocoder = VocosModel(VocosConfig(mel=codec.model.config.mel, **numbers))
    clips = read_clips(args.audio, args.split)
    if args.dry_run:
        batch = training.per_device_train_batch_size * training.gradient_accumulation_steps * training.world_size
        print(
            f"clips            {len(clips):,}\n"
            f"vocoder          {sum(p.numel() for p in vocoder.parameters()) / 1e6:,.2f} M parameters\n"
            f"mel              {vocoder.config.mel_spec.fingerprint} of {args.codec}\n"
            f"effective batch  {batch} segments of {args.crop_seconds:g} s\n"
            f"steps            {training.max_steps:,}"
        )
        return

    output, ranks = Path(args.output_dir), training.distributed_state
    if args.overwrite_output and ranks.is_main_process:
        run.clear(output)
    ranks.wait_for_everyone()
    checkpoint = run.starting_point(output, "auto")
    if checkpoint is not None:
        print(f"going on from {checkpoint}")
    crops = CropDataset(
        clips, vocoder.config.mel_spec, args.crop_seconds, args.seed, args.max_unreadable, waveforms_only=True
    )
    task = VocoderTraining(vocoder, args.mel_weight)
    trainer = Trainer(model=task, args=training, train_dataset=crops, callbacks=[SetEpoch(crops)])
    if run.is_complete(checkpoint, training.max_steps):
        trainer._load_from_checkpoint(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    if not trainer.is_world_process_zero():
        return
    vocoder.save_pretrained(output)
    codec.model.attach_vocoder(vocoder)
    codec.save_pretrained(args.codec)
    run.write_log(output, trainer.state.log_history)
    for reason in crops.unreadable.values():
        print(f"unreadable, replaced: {reason}")
    parts = {"recipe": Path(__file__).name, "mel": vocoder.config.mel_spec.fingerprint, "arguments": asdict(args)}
    run.write_manifest(output, {**parts, "unreadable": list(crops.unreadable.values())}, sys.argv)
    print(f"vocoder saved to {output} and into {args.codec}")


if __name__ == "__main__":
    run_main(main)
