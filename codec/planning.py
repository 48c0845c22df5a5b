"""What a training step of the codec takes in memory, gone through in shapes alone: needs no weights, no data and no GPU."""

import torch

from codec.configuration import EntangleCodecConfig
from codec.discriminator import MelDiscriminator, MelDiscriminatorConfig
from codec.live_tensors import StepBytes, Turn, in_shapes, step_bytes
from codec.modeling import EntangleCodecForPreTraining, EntangleCodecModel
from codec.refinement import Critics, DecoderRefinement


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


def _copies(model: torch.nn.Module) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in (*model.parameters(), *model.buffers())]
