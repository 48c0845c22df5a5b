"""What a training step of the codec takes in memory, gone through in shapes alone: needs no weights, no data and no GPU."""

import torch

from codec.configuration import EntangleCodecConfig
from codec.discriminator import MelDiscriminator, MelDiscriminatorConfig
from codec.live_tensors import StepBytes, in_shapes, step_bytes
from codec.modeling import EntangleCodecForPreTraining, EntangleCodecModel
from codec.refinement import Critics, DecoderRefinement


def stage_one_bytes(config: EntangleCodecConfig, batch: int, crop_seconds: float, half: bool) -> StepBytes:
    """Of a step of `batch` crops of full length with the longest captions; `half`: autocast to bfloat16."""
    with in_shapes():
        model = EntangleCodecForPreTraining(config).train()
        mel = torch.zeros(batch, round(crop_seconds * config.frame_rate), config.mel_spec.num_mel_bins)
        captions = torch.zeros(batch, config.text_max_length, dtype=torch.long)
        lengths = torch.zeros(batch, dtype=torch.long)
    model.codec.quantizer.standardise = None  # it picks real frames, whose number no shape tells; some bytes a frame
    return step_bytes(model, lambda: model(mel, None, captions, lengths).loss, half, beside=[mel, captions, lengths])


def stage_two_bytes(
    config: EntangleCodecConfig,
    critic: MelDiscriminatorConfig,
    batch: int,
    crop_seconds: float,
    half: bool,
    sampled_share: float = 0.5,
    witness: bool = False,
) -> StepBytes:
    """Of a step under a frozen discriminator, and a `witness` beside it; as `stage_one_bytes`."""
    frames = round(crop_seconds * config.frame_rate)
    with in_shapes():
        task = DecoderRefinement(EntangleCodecModel(config), sampled_share=sampled_share).train()
        critics = Critics(MelDiscriminator(critic), MelDiscriminator(critic) if witness else None)
        mel = torch.zeros(batch, frames, config.mel_spec.num_mel_bins)
        codes = torch.zeros(batch, frames, dtype=torch.long)

    def loss() -> torch.Tensor:
        flow, made = task(mel, codes)
        verdict = critics.judge(mel[: len(made)], made, [frames] * len(made))
        return flow + verdict.adversarial + verdict.features

    judges = [critics.discriminator, *([critics.witness] if critics.witness else [])]
    return step_bytes(task, loss, half, beside=[mel, codes, *(p for judge in judges for p in judge.parameters())])
