"""Pre-train the mel discriminator of stage 2 (B.3): true mel against what a stage-1 codec makes of its own codes.

    accelerate launch recipes/train_discriminator.py --config recipes/configs/paper/train_discriminator.yaml --codec CODEC \
        --tokens STORE --audio DATA --output_dir DIR

STORE is a token store that recipes/tokenize_corpus.py made of DATA with CODEC. DATA are folders, audio files or text lists of paths, as
given there, or CSV files, folders with metadata.csv and Hub data sets, as for recipes/train_codec.py. With another --seed it makes the
witness of recipes/refine_codec.py. An interrupted run goes on where its last checkpoint stands when the same command is given again.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import ConfigFileError, parse_with_trainer_arguments, read_numbers, run_main
from alm.training.arguments import CODEC_DEFAULTS, MachineArguments, codec_trainer_arguments

if TYPE_CHECKING:
    from alm.data.coded_clips import CodedClips
    from alm.data.tokens import TokenStore
    from codec import EntangleCodecConfig
    from codec.discriminator import MelDiscriminator, MelDiscriminatorConfig


@dataclass
class DiscriminatorArguments(MachineArguments):
    codec: str = field(metadata={"help": "folder of the stage-1 codec whose mel is to be told from the true one"})
    tokens: str = field(metadata={"help": "token store with the codes of the audio"})
    audio: list[str] = field(metadata={"help": "folders, audio files, lists of paths, CSV files or Hub data sets"})
    output_dir: str = field(metadata={"help": "folder of the discriminator"})
    discriminator: str = field(
        default="recipes/configs/paper/discriminator.yaml",
        metadata={"help": "YAML of MelDiscriminatorConfig's numbers"},
    )
    weights: list[float] = field(
        default_factory=list, metadata={"help": "a share for each --audio; default: by number of clips"}
    )
    split: str = field(default="train", metadata={"help": "split of a Hub data set"})
    streaming: bool = field(
        default=False, metadata={"help": "read Hub data sets (Parquet) where they are, instead of copying them first"}
    )
    crop_seconds: float = field(default=10.0, metadata={"help": "longest crop (B.1)"})
    sampled_share: float = field(default=0.5, metadata={"help": "share of made mel by the codec's own sampler"})
    many_steps_share: float = field(
        default=0.25,
        metadata={"help": "share of it by 4 to 8 steps; the rest is true mel, blurred or with noise on it"},
    )
    r1_weight: float = field(default=1.0, metadata={"help": "weight of the slope penalty at true mel; 0: none"})
    validation_clips: int = field(default=0, metadata={"help": "clips held out for the accuracy"})
    stop_accuracy: float | None = field(
        default=None,
        metadata={"help": "end where the held-out accuracy reaches this (needs --eval_strategy); default: never"},
    )
    max_missing: float = field(default=0.05, metadata={"help": "share of clips that may be missing or unreadable"})
    seed: int = field(default=42, metadata={"help": "seed of weights, crops, noise and order"})
    overwrite_output: bool = field(default=False, metadata={"help": "start afresh where OUTPUT_DIR holds a run"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.sampled_share, self.many_steps_share) < 0 or self.sampled_share + self.many_steps_share > 1:
            raise ValueError(
                f"--sampled_share {self.sampled_share} and --many_steps_share {self.many_steps_share} are parts of one"
            )
        if self.stop_accuracy is not None and not self.validation_clips:
            raise ValueError(f"--stop_accuracy {self.stop_accuracy} needs --validation_clips")


DEFAULTS = {
    **CODEC_DEFAULTS,
    "learning_rate": 1e-4,  # SyntaSpeech's; the paper gives none
    "weight_decay": 0.0,
    "max_steps": 30_000,
    "per_device_train_batch_size": 32,
}


# flags with which alone an interrupted run goes on
KEPT = ("split", "weights", "seed", "crop_seconds", "validation_clips")


def main(argv: list[str] | None = None) -> None:
    args, training = parse_with_trainer_arguments(
        DiscriminatorArguments, argv, __doc__, codec_trainer_arguments, DEFAULTS
    )

    from transformers import set_seed

    from alm.data.coded_clips import read_coded_clips
    from alm.data.tokens import TokenStore
    from alm.scoring.manifest import weights_digest
    from alm.training import run
    from alm.training.codec_run import require_same_begin, settle_layout, shape_of, step_lines
    from alm.training.spread import require_same_spread
    from codec import EntangleCodec, EntangleCodecConfig
    from codec.discriminator import MelDiscriminator, MelDiscriminatorConfig
    from codec.parts_trainer import stopped

    if args.stop_accuracy is not None and training.eval_strategy == "no":
        raise ConfigFileError(
            f"--stop_accuracy {args.stop_accuracy} needs --eval_strategy steps (or epoch): it is measured there"
        )
    layout = settle_layout(args, training)
    numbers = read_numbers(args.discriminator)
    if args.machine:
        config = shape_of(EntangleCodecConfig, args.codec)
        dry_run(config, MelDiscriminatorConfig(mel=config.mel, **numbers), None, args, training, layout)
        return
    codec = EntangleCodec.from_pretrained(args.codec)
    store = TokenStore.open(args.tokens, codec.fingerprint)
    clips = read_coded_clips(args.audio, store, args.split, args.validation_clips, args.streaming)
    set_seed(args.seed)
    discriminator = MelDiscriminator(MelDiscriminatorConfig(mel=codec.model.config.mel, **numbers))
    if args.dry_run:
        dry_run(codec.model.config, discriminator.config, clips, args, training, layout)
        return

    output, ranks = Path(args.output_dir), training.distributed_state
    checkpoint = run.begin(output, ranks, args.overwrite_output)
    require_same_spread(checkpoint, training, draws=True)
    found = {"codec": codec.fingerprint, "decoder": weights_digest(codec.model.decoder), "numbers": numbers}
    require_same_begin(args, training, checkpoint, clips.digest, KEPT, **found)
    if ranks.is_main_process:
        told = [f"going on from {checkpoint}"] if checkpoint else plan(discriminator, clips)
        print(*told, *step_lines(args, training, layout, clips.total), sep="\n")
    trainer = make_trainer(discriminator, codec, store, clips, args, training)
    if checkpoint and (run.is_complete(checkpoint, training.max_steps) or stopped(checkpoint)):
        trainer.restore(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        save(trainer, codec.fingerprint, store, args)


def make_trainer(
    discriminator: "MelDiscriminator", codec: Any, store: Any, clips: "CodedClips", args: Any, training: Any
) -> Any:
    """Trainer over crops with their codes."""
    from alm.data.coded_clips import StoredCodes
    from alm.training.codec_run import resumable
    from codec.coded_crops import CodedMelCrops, collate_coded
    from codec.discriminator import DiscriminatorError
    from codec.discriminator_training import DiscriminatorTrainer, DiscriminatorTraining, Shares
    from codec.mixing import mix_clips
    from codec.training import SetEpoch

    spec = codec.model.config.mel_spec
    if args.crop_seconds * spec.frame_rate < min(discriminator.sizes):
        raise DiscriminatorError(
            f"--crop_seconds {args.crop_seconds} is shorter than every window ({discriminator.sizes} frames at {spec.frame_rate:g} Hz)"
        )

    def crops(these: Any) -> CodedMelCrops:
        settings = (these, spec, args.crop_seconds, args.seed, args.max_missing)
        return CodedMelCrops(*settings, codes_of=StoredCodes(store))

    data = crops(mix_clips(clips.sources, args.weights, args.seed))
    return resumable(DiscriminatorTrainer)(
        DiscriminatorTraining(
            discriminator, codec.model, args.r1_weight, Shares(args.sampled_share, args.many_steps_share)
        ),
        args=training,
        train_dataset=data,
        eval_dataset=crops(clips.held_out) if clips.held_out else None,
        data_collator=collate_coded,
        callbacks=[SetEpoch(data)],
        stop_accuracy=args.stop_accuracy,
    )


def save(trainer: Any, fingerprint: str, store: "TokenStore", args: DiscriminatorArguments) -> None:
    """The discriminator and the manifest."""
    from alm.training.codec_run import finish

    output = Path(args.output_dir)
    trainer.model.discriminator.save_pretrained(output)
    finish(trainer, Path(__file__).name, args, {"codec_fingerprint": fingerprint, "token_store": store.contract})
    print(f"discriminator saved to {output}")


def dry_run(
    config: "EntangleCodecConfig",
    critic: "MelDiscriminatorConfig",
    clips: "CodedClips | None",
    args: DiscriminatorArguments,
    training: Any,
    layout: Any,
) -> None:
    """Print the plan; no weights are made."""
    import torch

    from alm.training.codec_run import look
    from codec.discriminator import MelDiscriminator
    from codec.planning import discriminator_bytes

    with torch.device("meta"):
        shape = MelDiscriminator(critic)
    sizes = (training.per_device_train_batch_size, args.crop_seconds, layout.half_precision)
    memory = discriminator_bytes(config, critic, *sizes)
    look(plan(shape, clips), memory, args, training, layout, clips and clips.total)


def plan(discriminator: "MelDiscriminator", clips: "CodedClips | None") -> list[str]:
    """What would be trained on what, in words."""
    read = f"{clips.total:,} ({len(clips.held_out)} held out, {clips.left_out} not encodable)" if clips else "not read"
    return [
        f"clips            {read}",
        f"discriminator    {sum(p.numel() for p in discriminator.parameters()) / 1e6:,.2f} M parameters, windows of "
        f"{discriminator.sizes} frames, {discriminator.config.objective}",
    ]


if __name__ == "__main__":
    run_main(main)
