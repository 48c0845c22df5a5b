"""EntangleCodec as Transformers models: the codec, and the codec with its caption tower for stage 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.initialization import constant_, normal_, ones_, zeros_
from transformers.modeling_utils import PreTrainedAudioTokenizerBase, PreTrainedModel
from transformers.utils import ModelOutput

from codec.configuration import EntangleCodecConfig
from codec.encoder import AudioEncoder
from codec.flow import FlowDecoder, flow_loss, noise, sample
from codec.mel import griffin_lim
from codec.quantizer import CosineQuantizer
from codec.text import CaptionTower, contrastive_loss
from codec.transformer import RMSNorm, ZeroLinear
from codec.vocoder import VocosModel


@dataclass
class EntangleCodecEncoderOutput(ModelOutput):
    """`audio_codes` `(B, 1, T)` int64; `latents` `(B, T, D_quant)` unit vectors before quantising."""

    audio_codes: Tensor | None = None
    latents: Tensor | None = None


@dataclass
class EntangleCodecDecoderOutput(ModelOutput):
    """`audio_values` `(B, 1, T × hop)` in about [-1, 1]; `mel` `(B, T, bins)` normalised log-mel."""

    audio_values: Tensor | None = None
    mel: Tensor | None = None


@dataclass
class EntangleCodecOutput(ModelOutput):
    """Codes and reconstruction of one forward pass."""

    audio_codes: Tensor | None = None
    audio_values: Tensor | None = None
    mel: Tensor | None = None


@dataclass
class EntangleCodecForPreTrainingOutput(ModelOutput):
    """Stage-1 losses (eq. 8), each `()`, with `codes` `(B, T)` and `latents` `(B, T, D_quant)` for the codebook's care."""

    loss: Tensor | None = None
    flow_loss: Tensor | None = None
    contrastive_loss: Tensor | None = None
    vq_loss: Tensor | None = None
    codes: Tensor | None = None
    latents: Tensor | None = None


class EntangleCodecPreTrainedModel(PreTrainedModel):
    """Configuration class and initialisation that the codec's models share."""

    config_class = EntangleCodecConfig
    base_model_prefix = "codec"
    main_input_name = "input_features"
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    # fp32 for anything that decides a code, whatever dtype the rest is loaded in
    _keep_in_fp32_modules_strict = ["encoder", "quantizer"]  # noqa: RUF012 (Transformers' own form)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ZeroLinear):
            zeros_(module.weight)
            if module.bias is not None:
                zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            # by fan-in and not one figure for all widths: at 0.02 the codes' path into a narrow decoder starts a hundred times
            # weaker than the noise, and the decoder takes a thousand steps to hear it
            normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            normal_(module.weight, std=0.02)
        elif isinstance(module, nn.BatchNorm1d):
            zeros_(module.running_mean)
            ones_(module.running_var)
            zeros_(module.num_batches_tracked)
        elif isinstance(module, RMSNorm):
            ones_(module.weight)
        else:
            self._init_own_parameters(module)

    def _init_own_parameters(self, module: nn.Module) -> None:
        if isinstance(module, AudioEncoder):
            normal_(module.cls)
            normal_(
                module.project.bias
            )  # the norm then keeps loudness: a constant beside the frame, whose share shrinks
        elif isinstance(module, CosineQuantizer):
            normal_(module.codebook)  # uniform directions, until `codec.codebook.start_codebook` sees data
        elif isinstance(module, CaptionTower):
            normal_(module.positions, std=0.01)
        elif isinstance(module, FlowDecoder):
            if module.segment is not None:
                # not zero: of a dropped condition nothing else is left, and a norm of zeros explodes
                normal_(module.segment)
        elif isinstance(module, EntangleCodecForPreTraining):
            constant_(module.logit_scale, self.config.logit_scale_init)
            zeros_(module.code_hits)


class EntangleCodecModel(EntangleCodecPreTrainedModel, PreTrainedAudioTokenizerBase):
    """The codec: encoder, quantizer, flow decoder and (if trained) vocoder.

    Speaks Transformers' audio-tokenizer convention; `codec.entangle.EntangleCodec` wraps it as the project's codec contract.
    """

    base_model_prefix = "codec"
    # a stage-1 checkpoint also holds the caption tower, which ends with stage 1
    _keys_to_ignore_on_load_unexpected = [r"text_tower\.", r"audio_projection\.", r"logit_scale", r"code_hits"]  # noqa: RUF012

    def __init__(self, config: EntangleCodecConfig) -> None:
        super().__init__(config)
        self.encoder = AudioEncoder(config)
        self.quantizer = CosineQuantizer(config)
        self.decoder = FlowDecoder(config)
        vocoder = config.vocoder_config
        self.vocoder = None if vocoder is None else VocosModel(vocoder)
        if self.vocoder is not None:
            self.vocoder.require_mel(config.mel_spec, "the codec")
        self.post_init()

    def attach_vocoder(self, vocoder: VocosModel) -> None:
        """Put a trained vocoder into this codec, so that one folder holds both. Raises `ValueError` on another mel."""
        vocoder.require_mel(self.config.mel_spec, "the codec")
        self.config.vocoder = {
            name: getattr(vocoder.config, name)
            for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "n_fft", "hop_length", "num_mel_bins")
        }
        self.vocoder = vocoder

    def encode(
        self, input_features: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> EntangleCodecEncoderOutput:
        """Codes of normalised log-mel `(B, T, bins)`; `attention_mask` `(B, T)` is 1 at real frames, None when all are.

        Codes behind a clip's end are meaningless. Raises `ValueError` on clips over `config.max_audio_seconds`.
        """
        seconds = input_features.shape[1] / self.config.frame_rate
        if seconds > self.config.max_audio_seconds:
            raise ValueError(
                f"a clip of {seconds:.1f} s is over max_audio_seconds={self.config.max_audio_seconds}: the codec never chunks "
                "silently (chunks give other codes). Cut the clip, or raise model.config.max_audio_seconds if memory allows"
            )
        hidden = self.encoder(input_features.float(), attention_mask).hidden
        latents = self.quantizer.latents(hidden, attention_mask)
        return EntangleCodecEncoderOutput(audio_codes=self.quantizer.search(latents)[:, None], latents=latents)

    def decode(
        self,
        audio_codes: Tensor,
        attention_mask: Tensor | None = None,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        seeds: Sequence[int] | int = 0,
        vocode: bool | str = True,
        first_frame: int = 0,
        **_: Any,
    ) -> EntangleCodecDecoderOutput:
        """Waveforms `(B, 1, T × hop)` of codes `(B, 1, T)`.

        Args:
            audio_codes: codes in [0, codebook_size).
            attention_mask: `(B, T)`, 1 at real frames, None when all are.
            num_steps, guidance_scale: sampler (eq. 12); the config's by default.
            seeds: one seed for every clip, or one each.
            vocode: True for the vocoder, False for the mel alone, `"griffin_lim"` for debugging without a vocoder.
            first_frame: where in their clips the codes begin; decides their noise.
        """
        if audio_codes.ndim != 3 or audio_codes.shape[1] != 1:
            raise ValueError(f"audio_codes of shape (B, 1, T) needed, got {tuple(audio_codes.shape)}")
        B, _one, T = audio_codes.shape
        vectors = self.quantizer.lookup(audio_codes[:, 0])
        seeds = [seeds] * B if isinstance(seeds, int) else seeds
        z = noise(first_frame + T, self.config.mel_spec.num_mel_bins, seeds, audio_codes.device)[:, first_frame:]
        dtype = self.decoder.out.weight.dtype
        with torch.autocast(z.device.type, dtype=dtype, enabled=dtype in (torch.bfloat16, torch.float16)):
            mel = sample(
                self.decoder,
                vectors,
                z,
                attention_mask,
                self.config.num_steps if num_steps is None else num_steps,
                self.config.guidance_scale if guidance_scale is None else guidance_scale,
            )
        return EntangleCodecDecoderOutput(audio_values=self._vocode(mel, attention_mask, vocode), mel=mel)

    def _vocode(self, mel: Tensor, attention_mask: Tensor | None, how: bool | str) -> Tensor | None:
        if how is False:
            return None
        if how == "griffin_lim":
            return torch.stack([griffin_lim(clip, self.config.mel_spec) for clip in mel.cpu()])[:, None]
        if how is not True:
            raise ValueError(f'vocode takes True, False or "griffin_lim", got {how!r}')
        if self.vocoder is None:
            raise ValueError(
                "this codec has no vocoder: train one with recipes/train_vocoder.py, take the mel with vocode=False, or listen to "
                'a debugging reconstruction with vocode="griffin_lim"'
            )
        return self.vocoder(mel, attention_mask)[:, None]

    def forward(
        self, input_features: Tensor, attention_mask: Tensor | None = None, **decode_options: Any
    ) -> EntangleCodecOutput:
        """Encode and decode: normalised log-mel `(B, T, bins)` to codes `(B, 1, T)` and waveforms `(B, 1, T × hop)`."""
        codes: Tensor = self.encode(input_features, attention_mask)["audio_codes"]
        decoded = self.decode(codes, attention_mask, **decode_options)
        return EntangleCodecOutput(audio_codes=codes, audio_values=decoded.audio_values, mel=decoded.mel)


class EntangleCodecForPreTraining(EntangleCodecPreTrainedModel):
    """Stage 1: the codec with its caption tower, and the three losses of eq. 8 on one batch.

    `code_hits` `(codebook_size,)` is a running average of how often each code is used. It lives here, in the checkpoints, so
    that a resumed run restarts the same dead codes; `codec.training` keeps it.
    """

    code_hits: Tensor

    def __init__(self, config: EntangleCodecConfig) -> None:
        super().__init__(config)
        self.codec = EntangleCodecModel(config)
        self.text_tower = CaptionTower(config)
        self.audio_projection = nn.Linear(config.hidden_size, config.projection_size)  # eq. 4
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init))
        self.register_buffer("code_hits", torch.zeros(config.codebook_size))
        self.post_init()

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        caption_ids: Tensor | None = None,
        caption_lengths: Tensor | None = None,
    ) -> EntangleCodecForPreTrainingOutput:
        """Losses of normalised log-mel `(B, T, bins)` with captions `(B, L)`; without captions there is no contrastive loss.

        In evaluation mode times and noise are fixed, so that validation losses differ by the model alone.
        """
        encoded = self.codec.encoder(input_features, attention_mask)
        quantized = self.codec.quantizer(encoded.hidden, attention_mask)
        share = self.config.time_zero_share
        flow = flow_loss(self.codec.decoder, input_features, quantized.vectors, attention_mask, self.config, share)
        contrastive = input_features.new_zeros(())
        if caption_ids is not None:
            text = self.text_tower(caption_ids, caption_lengths)
            contrastive = contrastive_loss(self.audio_projection(encoded.cls), text, self.logit_scale)
        return EntangleCodecForPreTrainingOutput(
            loss=flow + self.config.contrastive_weight * contrastive + quantized.loss,  # eq. 8
            flow_loss=flow.detach(),
            contrastive_loss=contrastive.detach(),
            vq_loss=quantized.loss.detach(),
            codes=quantized.codes,
            latents=quantized.latents.detach(),
        )
