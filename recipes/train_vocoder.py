"""Train the Vocos vocoder on a codec's mel and put it into the codec's folder.

    accelerate launch recipes/train_vocoder.py --config recipes/configs/paper/train_vocoder.yaml --codec CODEC --audio DATA \
        --output_dir DIR

DATA as for recipes/train_codec.py (captions are not used). The losses are log-mel and multi-resolution spectra; with --adversarial true
those of Vocos as published, with discriminators, which need the package vocos (the extra `vocoder`). --finetune_on_decoder true goes on
from the codec's vocoder and lets it hear what the codec's decoder makes of its own codes. An interrupted run goes on where its last
checkpoint stands when the same command is given again.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import parse_with_trainer_arguments, read_numbers, run_main
from alm.training.arguments import CODEC_DEFAULTS, MachineArguments, codec_trainer_arguments

if TYPE_CHECKING:
    from codec import EntangleCodecConfig, VocosConfig


@dataclass
class VocoderArguments(MachineArguments):
    codec: str = field(metadata={"help": "folder of the codec whose mel the vocoder learns; it receives the vocoder"})
    audio: list[str] = field(
        metadata={"help": "folders with metadata.csv, CSV files (file_name,caption), or Hub data sets"}
    )
    output_dir: str = field(metadata={"help": "folder of the vocoder alone, and of its checkpoints"})
    weights: list[float] = field(
        default_factory=list, metadata={"help": "a share for each --audio; default: by number of clips"}
    )
    vocoder: str = field(
        default="recipes/configs/paper/vocoder.yaml", metadata={"help": "YAML of VocosConfig's numbers"}
    )
    start_from: str | None = field(
        default=None, metadata={"help": "folder of a trained vocoder to go on from, instead of a new one"}
    )
    split: str = field(default="train", metadata={"help": "split of a Hub data set"})
    streaming: bool = field(
        default=False, metadata={"help": "read Hub data sets (Parquet) where they are, instead of copying them first"}
    )
    crop_seconds: float = field(default=1.0, metadata={"help": "length of the training segments"})
    adversarial: bool = field(
        default=False, metadata={"help": "train with the discriminators and losses of the package vocos"}
    )
    pretrain_steps: int = field(
        default=0,
        metadata={"help": "with --adversarial: steps with the mel loss alone, before the discriminators start"},
    )
    mel_weight: float | None = field(
        default=None,
        metadata={"help": "weight of the log-mel loss; default: 1 beside the spectral loss, 45 with --adversarial"},
    )
    mrd_weight: float = field(
        default=0.1, metadata={"help": "with --adversarial: weight of the multi-resolution discriminator"}
    )
    finetune_on_decoder: bool = field(
        default=False,
        metadata={"help": "hear the mel that the codec's decoder makes of its own codes, not the true one"},
    )
    tokens: str | None = field(
        default=None,
        metadata={
            "help": "with --finetune_on_decoder: token store with the clips' codes, instead of encoding the crops"
        },
    )
    max_missing: float = field(default=0.05, metadata={"help": "share of clips that may be missing or unreadable"})
    seed: int = field(default=42, metadata={"help": "seed of weights, crops and order"})
    overwrite_output: bool = field(default=False, metadata={"help": "start afresh where OUTPUT_DIR holds a run"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mel_weight is None:
            self.mel_weight = 45.0 if self.adversarial else 1.0
        if self.tokens is not None and not self.finetune_on_decoder:
            raise ValueError(
                f"--tokens {self.tokens} needs --finetune_on_decoder true: true mels have no use for codes"
            )
        if self.pretrain_steps and not self.adversarial:
            raise ValueError(
                f"--pretrain_steps {self.pretrain_steps} needs --adversarial true: no discriminators to wait"
            )


DEFAULTS = {  # vocos/configs/vocos.yaml of the package
    **CODEC_DEFAULTS,
    "learning_rate": 5e-4,
    "adam_beta1": 0.8,
    "adam_beta2": 0.9,
    "lr_scheduler_type": "cosine",
    "max_steps": 1_000_000,
    "per_device_train_batch_size": 16,
}


# flags with which alone an interrupted run goes on
KEPT = ("split", "weights", "seed", "crop_seconds", "adversarial", "mel_weight")


def main(argv: list[str] | None = None) -> None:
    args, training = parse_with_trainer_arguments(VocoderArguments, argv, __doc__, codec_trainer_arguments, DEFAULTS)

    from transformers import set_seed

    from alm.scoring.manifest import weights_digest
    from alm.training import run
    from alm.training.codec_run import data_digest, finish, require_same_begin, settle_layout, shape_of, step_lines
    from alm.training.spread import require_same_spread
    from codec import EntangleCodec, EntangleCodecConfig
    from codec.data import read_clips
    from codec.mixing import mix_clips
    from codec.training import SetEpoch
    from codec.vocoder_training import starting_vocoder

    layout = settle_layout(args, training)
    numbers = read_numbers(args.vocoder)
    if args.machine:
        dry_run(shape_of(EntangleCodecConfig, args.codec), numbers, None, args, training, layout)
        return
    codec = EntangleCodec.from_pretrained(args.codec)
    set_seed(args.seed)
    vocoder = starting_vocoder(codec.model, numbers, args.start_from, args.finetune_on_decoder)
    task = make_task(vocoder, codec, args)
    sources = [read_clips(source, args.split, streaming=args.streaming) for source in args.audio]
    clips = mix_clips(sources, args.weights, args.seed)
    crops = make_crops(clips, codec, args)
    if args.dry_run:
        dry_run(codec.model.config, vocoder.config, len(clips), args, training, layout)
        return

    output = Path(args.output_dir)
    checkpoint = run.begin(output, training.distributed_state, args.overwrite_output)
    require_same_spread(checkpoint, training, draws=True)
    heard = weights_digest(codec.model.decoder) if args.finetune_on_decoder else None
    found = {"codec": codec.fingerprint, "decoder": heard, "numbers": numbers}
    require_same_begin(args, training, checkpoint, data_digest(sources), KEPT, **found)
    if training.distributed_state.is_main_process:
        told = [f"going on from {checkpoint}"] if checkpoint else plan(vocoder.config, len(clips), args)
        print(*told, *step_lines(args, training, layout, len(clips)), sep="\n")
    trainer = make_trainer(task, {"args": training, "train_dataset": crops, "callbacks": [SetEpoch(crops)]}, args)
    if run.is_complete(checkpoint, training.max_steps):
        trainer.restore(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    if not trainer.is_world_process_zero():
        return
    vocoder.save_pretrained(output)
    codec.model.attach_vocoder(vocoder)
    codec.save_pretrained(args.codec)
    parts = {"mel": vocoder.config.mel_spec.fingerprint, "codec_fingerprint": codec.fingerprint}
    finish(trainer, Path(__file__).name, args, parts)
    print(f"vocoder saved to {output} and into {args.codec}")


def make_task(vocoder: Any, codec: Any, args: VocoderArguments) -> Any:
    """Vocoder and losses as one module."""
    from codec.vocoder_training import DecodedMel, VocoderTraining

    decoded = DecodedMel(codec.model) if args.finetune_on_decoder else None
    if not args.adversarial:
        return VocoderTraining(vocoder, args.mel_weight, decoded)
    from codec.vocoder_adversarial import AdversarialVocoderTraining

    return AdversarialVocoderTraining(vocoder, args.mel_weight, args.mrd_weight, decoded)


def make_crops(clips: Any, codec: Any, args: VocoderArguments) -> Any:
    """Crops of waveforms, with their codes where there is a token store."""
    from codec.coded_crops import CodedWaveformCrops
    from codec.data import CropDataset

    settings = (clips, codec.model.config.mel_spec, args.crop_seconds, args.seed, args.max_missing)
    if args.tokens is None:
        return CropDataset(*settings, waveforms_only=True)
    from alm.data.coded_clips import StoredCodes
    from alm.data.tokens import TokenStore

    store = TokenStore.open(args.tokens, codec.fingerprint)
    return CodedWaveformCrops(*settings, waveforms_only=True, codes_of=StoredCodes(store))


def make_trainer(task: Any, settings: dict[str, Any], args: VocoderArguments) -> Any:
    """Transformers' Trainer, with a second optimizer where there are discriminators."""
    from alm.training.codec_run import resumable
    from codec.vocoder_trainer import AdversarialTrainer, VocoderTrainer

    if args.adversarial:
        return resumable(AdversarialTrainer)(task, **settings, pretrain_steps=args.pretrain_steps)
    return resumable(VocoderTrainer)(task, **settings)


def dry_run(
    codec: "EntangleCodecConfig", numbers: Any, clips: int | None, args: VocoderArguments, training: Any, layout: Any
) -> None:
    """Print the plan of a vocoder of these `numbers`, or of a configuration; no weights are made."""
    from alm.training.codec_run import look
    from codec import VocosConfig
    from codec.planning import vocoder_bytes

    config = numbers if isinstance(numbers, VocosConfig) else VocosConfig(mel=codec.mel, **numbers)
    sizes = (training.per_device_train_batch_size, args.crop_seconds, layout.half_precision, args.adversarial)
    memory = vocoder_bytes(config, *sizes, decoded=codec if args.finetune_on_decoder else None)
    look(plan(config, clips, args), memory, args, training, layout, clips)


def plan(config: "VocosConfig", clips: int | None, args: VocoderArguments) -> list[str]:
    """What would be trained on what, in words."""
    import torch

    from codec import VocosModel

    with torch.device("meta"):
        size = sum(p.numel() for p in VocosModel(config).parameters()) / 1e6
    heard = f"the decoder's, of codes from {args.tokens or 'the crops'}" if args.finetune_on_decoder else "the true one"
    return [
        f"clips            {'not read' if clips is None else f'{clips:,}'}",
        f"vocoder          {size:,.2f} M parameters",
        f"discriminators   {f'from step {args.pretrain_steps:,}' if args.adversarial else 'none'}",
        f"mel              {config.mel_spec.fingerprint} of {args.codec}, {heard}",
    ]


if __name__ == "__main__":
    run_main(main)
