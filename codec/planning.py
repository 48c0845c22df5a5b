"""What a training step of the codec takes in memory, gone through in shapes alone: needs no weights, no data and no GPU."""

import torch

from codec.configuration import EntangleCodecConfig, VocosConfig
from codec.discriminator import MelDiscriminator, MelDiscriminatorConfig
from codec.discriminator_training import DiscriminatorTraining
from codec.flow import sample
from codec.live_tensors import StepBytes, Turn, in_shapes, step_bytes
from codec.modeling import EntangleCodecForPreTraining, EntangleCodecModel
from codec.refinement import Critics, DecoderRefinement
from codec.vocoder import VocosModel
from codec.vocoder_adversarial import AdversarialVocoderTraining
from codec.vocoder_training import VocoderTraining


def stage_one_bytes(
    config: EntangleCodecConfig, batch: int, crop_seconds: float, half: bool, averaged: bool = False
) -> StepBytes:
    """Of a step of `batch` crops of full length with the longest captions.

    `half`: autocast to bfloat16. `averaged`: a moving average of the weights is kept beside them (`codec.ema`).
    """
    with in_shapes():
        model = EntangleCodecForPreTraining(config).train()
        mel = torch.zeros(batch, round(crop_seconds * config.frame_rate), config.mel_spec.num_mel_bins)
        captions = torch.zeros(batch, config.text_max_length, dtype=torch.long)
        lengths = torch.zeros(batch, dtype=torch.long)
        model.codec.quantizer.standardise = (
            None  # it picks real frames, whose number no shape tells; some bytes a frame
        )
        copies = _copies(model) if averaged else []
    turn = Turn(model, lambda: model(mel, None, captions, lengths).loss, half)
    return step_bytes(turn, beside=[mel, captions, lengths, *copies])


def stage_two_bytes(
    config: EntangleCodecConfig,
    critic: MelDiscriminatorConfig,
    batch: int,
    crop_seconds: float,
    half: bool,
    sampled_share: float = 0.5,
    witness: bool = False,
    averaged: bool = False,
    trained_along: bool = False,
) -> StepBytes:
    """Of a step under a discriminator, frozen or `trained_along`, and a `witness` beside it; as `stage_one_bytes`."""
    frames = round(crop_seconds * config.frame_rate)
    with in_shapes():
        task = DecoderRefinement(EntangleCodecModel(config), sampled_share=sampled_share).train()
        critics = Critics(MelDiscriminator(critic), MelDiscriminator(critic) if witness else None)
        mel = torch.zeros(batch, frames, config.mel_spec.num_mel_bins)
        codes = torch.zeros(batch, frames, dtype=torch.long)
        copies = _copies(task) if averaged else []
    made: list[torch.Tensor] = []

    def loss() -> torch.Tensor:
        critics.discriminator.requires_grad_(False)
        flow, sampled = task(mel, codes)
        made[:] = [sampled.detach()]
        verdict = critics.judge(mel[: len(sampled)], sampled, [frames] * len(sampled))
        return flow + verdict.adversarial + verdict.features

    def lesson() -> torch.Tensor:
        critics.discriminator.requires_grad_(True)
        return critics.lesson(mel[: len(made[0])], made[0], [frames] * len(made[0]))

    turns = [Turn(task, loss, half)]
    if trained_along:
        turns.append(Turn(critics.discriminator.requires_grad_(True), lesson, False))
    judges = [critics.discriminator, *([critics.witness] if critics.witness else [])]
    still = [tensor for judge in judges for tensor in (*judge.parameters(), *judge.buffers())]
    return step_bytes(*turns, beside=[mel, codes, *copies, *still])


def discriminator_bytes(
    config: EntangleCodecConfig, critic: MelDiscriminatorConfig, batch: int, crop_seconds: float, half: bool
) -> StepBytes:
    """Of a step of the discriminator alone (`codec.discriminator_training`), all made mel by the sampler; as `stage_one_bytes`."""
    frames = round(crop_seconds * config.frame_rate)
    with in_shapes():
        codec = EntangleCodecModel(config)
        task = DiscriminatorTraining(MelDiscriminator(critic), codec).train()
        codec.train()  # in evaluation mode a CPU's linear layers pack their weights, of which shapes know nothing
        mel = torch.zeros(batch, frames, config.mel_spec.num_mel_bins)
        vectors = torch.zeros(batch, frames, config.codebook_dim)
        codes = torch.zeros(batch, frames, dtype=torch.long)

    def mixed(mel: torch.Tensor, codes: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        with torch.no_grad():  # without a look at the codes, which have no values
            return sample(codec.decoder, vectors, torch.randn_like(mel), mask, config.num_steps, config.guidance_scale)

    task.made.mixed = mixed  # type: ignore[method-assign]
    turn = Turn(task, lambda: task(mel, codes)["loss"], half)
    return step_bytes(turn, beside=[mel, codes, *codec.parameters(), *codec.buffers()])


def vocoder_bytes(
    vocoder: VocosConfig,
    batch: int,
    crop_seconds: float,
    half: bool,
    adversarial: bool = False,
    decoded: EntangleCodecConfig | None = None,
) -> StepBytes:
    """Of a step of the vocoder, with the discriminators of the package vocos where `adversarial`; as `stage_one_bytes`.

    `decoded`: the codec whose decoder's mel is heard; its weights are counted, its work, which takes no gradients, is not.
    """
    spec = vocoder.mel_spec
    samples = round(crop_seconds * spec.frame_rate) * spec.hop_length
    # made of real tensors first: the package's filters look at values
    task = AdversarialVocoderTraining(VocosModel(vocoder)) if adversarial else VocoderTraining(VocosModel(vocoder))
    with in_shapes():
        _copy_all(task.train())
        waveform = torch.zeros(batch, samples)
        heard = torch.zeros(batch, samples // spec.hop_length, spec.num_mel_bins)
        beside = [] if decoded is None else [*EntangleCodecModel(decoded).parameters()]
    beside += [waveform, heard]
    if not isinstance(task, AdversarialVocoderTraining):
        return step_bytes(Turn(task, lambda: task(waveform)["loss"], half), beside=beside)
    judging = Turn(task.judges, lambda: task(waveform, heard, "judges")["loss"], half)
    speaking = Turn(task.vocoder, lambda: task(waveform, heard, "vocoder")["loss"], half)
    return step_bytes(judging, speaking, beside=[*beside, *task.buffers()])


def _copy_all(model: torch.nn.Module) -> None:
    """Put a copy in the place of each parameter and buffer; within `in_shapes` it has no memory."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(weight.detach().clone(), weight.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.clone())


def _copies(model: torch.nn.Module) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in (*model.parameters(), *model.buffers())]
