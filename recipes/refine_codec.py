"""Refine EntangleCodec's decoder, stage 2 (eq. 13, B.3): flow loss and a mel discriminator, through the sampler of inference.

    accelerate launch recipes/refine_codec.py --config recipes/configs/paper/refine_codec.yaml --codec STAGE1 --discriminator CRITIC \
        --tokens STORE --audio DATA --output_dir DIR

Encoder, quantizer and discriminator stand still: the refined codec has the fingerprint of stage 1, so token stores and language models
stay valid. STORE is a token store that recipes/tokenize_corpus.py made of DATA with STAGE1, CRITIC comes from
recipes/train_discriminator.py. An interrupted run goes on where its last checkpoint stands when the same command is given again.
With --dry_run --machine FILE the plan for that machine needs no more of CODEC and CRITIC than their config.json (or YAML of its numbers).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import parse_with_trainer_arguments, run_main
from alm.training.arguments import CODEC_DEFAULTS, MachineArguments, codec_trainer_arguments

if TYPE_CHECKING:
    from alm.data.tokens import TokenStore
    from codec import EntangleCodecConfig
    from codec.coded_crops import CodedMelCrops
    from codec.discriminator import MelDiscriminatorConfig
    from codec.refinement_trainer import RefinementTrainer


@dataclass
class RefineArguments(MachineArguments):
    codec: str = field(metadata={"help": "folder of the stage-1 codec"})
    discriminator: str = field(metadata={"help": "folder of the pre-trained mel discriminator"})
    tokens: str = field(metadata={"help": "token store with the codes of the audio"})
    audio: list[str] = field(metadata={"help": "folders, audio files, lists of paths, CSV files or Hub data sets"})
    output_dir: str = field(metadata={"help": "folder of the refined codec"})
    weights: list[float] = field(
        default_factory=list, metadata={"help": "a share for each --audio; default: by number of clips"}
    )
    split: str = field(default="train", metadata={"help": "split of a Hub data set"})
    streaming: bool = field(
        default=False, metadata={"help": "read Hub data sets (Parquet) where they are, instead of copying them first"}
    )
    crop_seconds: float = field(default=10.0, metadata={"help": "longest crop (B.1)"})
    num_steps: int | None = field(
        default=None, metadata={"help": "steps of the sampler, kept in the refined codec; default: the codec's"}
    )
    guidance_scale: float | None = field(
        default=None, metadata={"help": "γ of eq. 12, kept in the refined codec; default: the codec's"}
    )
    sampled_share: float = field(default=0.5, metadata={"help": "part of a batch that the discriminator judges"})
    time_zero_share: float = field(default=0.5, metadata={"help": "share of exactly t = 0 in the flow loss"})
    adversarial_weight: float = field(default=1.0, metadata={"help": "weight of the adversarial loss (B.3)"})
    feature_weight: float = field(
        default=0.0, metadata={"help": "weight of the L1 between the discriminator's hidden maps"}
    )
    ramp_steps: int = field(default=5_000, metadata={"help": "steps in which both weights are reached"})
    vq_clips: int = field(
        default=32, metadata={"help": "clips whose mean L_vq stands in eq. 13, a constant here; 0: leave it out"}
    )
    witness: str | None = field(
        default=None, metadata={"help": "folder of a second discriminator, of another seed, that only watches"}
    )
    witness_limit: float = field(
        default=0.5,
        metadata={
            "help": "end where the critic's margin has fallen by so much more than the witness's (units of score)"
        },
    )
    endpoint_limit: float | None = field(
        default=None, metadata={"help": "end where the mel error is so many times its first, say 1.5; default: never"}
    )
    discriminator_trainable: bool = field(
        default=False, metadata={"help": "train the discriminator along (an ordinary GAN, not the paper's)"}
    )
    discriminator_learning_rate: float = field(
        default=1e-4, metadata={"help": "with --discriminator_trainable: its learning rate, constant"}
    )
    ema_decay: float | None = field(
        default=None, metadata={"help": "save a moving average of the weights, say 0.9999; default: none"}
    )
    validation_clips: int = field(default=0, metadata={"help": "clips held out for the validation loss"})
    max_missing: float = field(default=0.05, metadata={"help": "share of clips that may be missing or unreadable"})
    seed: int = field(default=42, metadata={"help": "seed of crops, noise, windows and order"})
    overwrite_output: bool = field(default=False, metadata={"help": "start afresh where OUTPUT_DIR holds a run"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sampled_share", "time_zero_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} is a share from 0 to 1, got {getattr(self, name)}")
        if not self.sampled_share:
            raise ValueError(
                "--sampled_share 0 leaves nothing to judge; --adversarial_weight 0 turns the discriminator off"
            )


DEFAULTS = {  # Table 5; batch arithmetic as in recipes/train_codec.py
    **CODEC_DEFAULTS,
    "learning_rate": 1e-4,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "weight_decay": 1e-2,
    "max_grad_norm": 1.0,
    "max_steps": 200_000,
    "warmup_steps": 2_000,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
}


# flags with which alone an interrupted run goes on
KEPT = (
    *("split", "weights", "seed", "crop_seconds", "validation_clips"),
    *("num_steps", "guidance_scale", "ema_decay", "discriminator_trainable"),
)


def main(argv: list[str] | None = None) -> None:
    args, training = parse_with_trainer_arguments(RefineArguments, argv, __doc__, codec_trainer_arguments, DEFAULTS)

    from transformers import set_seed

    from alm.data.coded_clips import StoredCodes, read_coded_clips
    from alm.data.tokens import TokenStore
    from alm.training import run
    from alm.training.codec_run import require_same_begin, settle_layout, step_lines
    from alm.training.spread import require_same_spread
    from codec import EntangleCodec
    from codec.coded_crops import CodedMelCrops
    from codec.discriminator import load_discriminator
    from codec.mixing import mix_clips
    from codec.parts_trainer import stopped
    from codec.refinement import Critics

    layout = settle_layout(args, training)
    if args.machine:
        dry_run(["clips            not read"], *read_shapes(args), args, training, layout)
        return
    codec = EntangleCodec.from_pretrained(args.codec)
    config = codec.model.config
    set_sampler(config, args)
    store = TokenStore.open(args.tokens, codec.fingerprint)
    clips = read_coded_clips(args.audio, store, args.split, args.validation_clips, args.streaming)
    critic, witness = (
        None if folder is None else load_discriminator(folder, config.mel_spec)
        for folder in (args.discriminator, args.witness)
    )
    assert critic is not None
    read = [
        f"clips            {clips.total:,} ({len(clips.held_out)} held out, {clips.left_out} not encodable)",
        f"codec            fingerprint {codec.fingerprint}, kept: encoder and quantizer stand still",
    ]
    if args.dry_run:
        dry_run(read, config, critic.config, args, training, layout, clips.total)
        return

    output, ranks = Path(args.output_dir), training.distributed_state
    checkpoint = run.begin(output, ranks, args.overwrite_output)
    require_same_spread(checkpoint, training, draws=True)
    require_same_begin(args, training, checkpoint, clips.digest, KEPT, **identity(codec, critic, witness))
    if ranks.is_main_process:
        told = [f"going on from {checkpoint}"] if checkpoint else [*read, *plan(config, critic.config, args)]
        print("\n".join([*told, *step_lines(args, training, layout, clips.total)]))
    set_seed(args.seed)
    settings = (config.mel_spec, args.crop_seconds, args.seed, args.max_missing)
    crops, held_out = (
        CodedMelCrops(these, *settings, codes_of=StoredCodes(store)) if these else None
        for these in (mix_clips(clips.sources, args.weights, args.seed), clips.held_out)
    )
    trainer = make_trainer(codec, Critics(critic, witness), crops, held_out, checkpoint, args, training)
    if checkpoint and (run.is_complete(checkpoint, training.max_steps) or stopped(checkpoint)):
        trainer.restore(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.is_world_process_zero():
        save(trainer, codec, store, args)


def identity(codec: Any, critic: Any, witness: Any) -> dict[str, str | None]:
    """What is refined under what: the codec with its decoder, and the discriminators, by their weights."""
    from alm.scoring.manifest import weights_digest

    parts = {"decoder": codec.model.decoder, "discriminator": critic, "witness": witness}
    return {"codec": codec.fingerprint} | {name: part and weights_digest(part) for name, part in parts.items()}


def measured_vq_loss(codec: Any, crops: "CodedMelCrops", count: int) -> float:
    """Mean L_vq over whole clips spread over the list. Raises `RefinementError` where the stored codes are not the codec's."""
    from codec.refinement import RefinementError, vq_loss

    losses, agreements = [], []
    for index in range(0, len(crops), -(-len(crops) // max(count, 1))) if count else ():
        row = crops.whole(index)
        if len(row["codes"]) <= codec.model.config.max_audio_seconds * codec.frame_rate:
            loss, agreement = vq_loss(codec.model, row["mel"], row["codes"])
            losses.append(loss)
            agreements.append(agreement)
    if losses and sum(agreements) / len(agreements) < 0.9:
        raise RefinementError(
            f"the codec gives only {sum(agreements) / len(agreements):.0%} of the stored codes of {len(losses)} clips again: the store's "
            "audio was changed since, or it was encoded in another precision; build the token store again"
        )
    return sum(losses) / len(losses) if losses else 0.0


def make_trainer(
    codec: Any, critics: Any, crops: Any, held_out: Any, checkpoint: str | None, args: RefineArguments, training: Any
) -> "RefinementTrainer":
    """Trainer with its callbacks."""
    from alm.training.codec_run import resumable
    from codec.coded_crops import collate_coded
    from codec.ema import MovingAverage
    from codec.refinement import DecoderRefinement, RefinementError
    from codec.refinement_trainer import RefinementTrainer, StageTwo
    from codec.training import SetEpoch

    sizes = critics.discriminator.sizes
    if args.crop_seconds * codec.frame_rate < min(sizes):
        raise RefinementError(
            f"--crop_seconds {args.crop_seconds} is shorter than every window of the discriminator ({sizes} frames)"
        )
    stage = StageTwo(
        vq_loss=measured_vq_loss(codec, crops, args.vq_clips),
        adversarial_weight=args.adversarial_weight,
        feature_weight=args.feature_weight,
        ramp_steps=args.ramp_steps,
        endpoint_limit=args.endpoint_limit,
        witness_limit=args.witness_limit,
        discriminator_learning_rate=args.discriminator_learning_rate if args.discriminator_trainable else None,
    )
    task = DecoderRefinement(codec.model, args.time_zero_share, args.sampled_share)
    callbacks: list[Any] = [SetEpoch(crops)]
    if args.ema_decay is not None:
        callbacks.append(MovingAverage(task, args.ema_decay, checkpoint))
    trainer: RefinementTrainer = resumable(RefinementTrainer)(
        task,
        args=training,
        train_dataset=crops,
        eval_dataset=held_out,
        data_collator=collate_coded,
        callbacks=callbacks,
        critics=critics,
        stage=stage,
    )
    return trainer


def save(trainer: "RefinementTrainer", codec: Any, store: "TokenStore", args: RefineArguments) -> None:
    """The refined codec, the discriminator if it trained along and the manifest."""
    from alm.training.codec_run import finish
    from codec import EntangleCodec
    from codec.ema import put_average

    output = Path(args.output_dir)
    put_average(trainer)
    refined = EntangleCodec(codec.model.cpu(), codec.feature_extractor)
    assert refined.fingerprint == codec.fingerprint, "stage 2 has changed the encoder or the quantizer"
    refined.save_pretrained(output)
    if args.discriminator_trainable:
        trainer.critics.discriminator.save_pretrained(output / "discriminator")
    parts = {"fingerprint": refined.fingerprint, "token_store": store.contract, "vq_loss": trainer.stage.vq_loss}
    finish(trainer, Path(__file__).name, args, parts)
    print(f"refined codec saved to {output} (fingerprint {refined.fingerprint}, that of stage 1)")


def set_sampler(config: "EntangleCodecConfig", args: RefineArguments) -> None:
    """Put the sampler's flags, where given, into the codec's configuration."""
    config.num_steps = config.num_steps if args.num_steps is None else args.num_steps
    config.guidance_scale = config.guidance_scale if args.guidance_scale is None else args.guidance_scale


def read_shapes(args: RefineArguments) -> "tuple[EntangleCodecConfig, MelDiscriminatorConfig]":
    """The configurations of codec and discriminator alone, of folders or of YAML files of numbers: for a plan."""
    from alm.training.codec_run import shape_of
    from codec import EntangleCodecConfig
    from codec.discriminator import MelDiscriminatorConfig

    shapes = shape_of(EntangleCodecConfig, args.codec), shape_of(MelDiscriminatorConfig, args.discriminator)
    set_sampler(shapes[0], args)
    shapes[1].mel = shapes[0].mel
    return shapes[0], shapes[1]


def dry_run(
    read: list[str],
    config: "EntangleCodecConfig",
    critic: "MelDiscriminatorConfig",
    args: RefineArguments,
    training: Any,
    layout: Any,
    clips: int | None = None,
) -> None:
    """Print what was `read` and the plan."""
    from alm.training.codec_run import look
    from codec.planning import stage_two_bytes

    sizes = (training.per_device_train_batch_size, args.crop_seconds, layout.half_precision, args.sampled_share)
    beside = {"witness": args.witness is not None, "averaged": args.ema_decay is not None}
    memory = stage_two_bytes(config, critic, *sizes, **beside, trained_along=args.discriminator_trainable)
    look([*read, *plan(config, critic, args)], memory, args, training, layout, clips)


def plan(config: "EntangleCodecConfig", critic: "MelDiscriminatorConfig", args: RefineArguments) -> list[str]:
    """What a run would do, in words."""
    import torch

    from codec import EntangleCodecModel
    from codec.discriminator import MelDiscriminator

    with torch.device("meta"):
        parts = EntangleCodecModel(config).decoder, MelDiscriminator(critic)
    sizes = [sum(p.numel() for p in part.parameters()) / 1e6 for part in parts]
    lines = [
        f"decoder          {sizes[0]:,.2f} M parameters",
        f"sampler          {config.num_steps} step(s), guidance {config.guidance_scale:g}",
        f"discriminator    {sizes[1]:,.2f} M parameters, {'trained along' if args.discriminator_trainable else 'frozen'}",
    ]
    if config.num_steps == 1 and config.guidance_scale > 0:
        lines.append(
            "note: at one step, guidance asks for another decoder output than the flow loss does (docs/paper.md)"
        )
    return lines


if __name__ == "__main__":
    run_main(main)
