"""Configurations of EntangleCodec and its vocoder. The defaults are the paper's size; a tiny codec differs only in numbers."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from codec.mel import MelSpec


@strict
class VocosConfig(PreTrainedConfig):
    """Vocos vocoder (Siuzdak, 2023): ConvNeXt backbone and inverse-STFT head with "same" framing.

    `n_fft` is four hops, as in every public Vocos: at 1024 / 480 the summed squared window ripples by 2.2 dB.
    """

    model_type = "vocos"
    mel: dict[str, Any] | None = None
    hidden_size: int = 512
    intermediate_size: int = 1536
    num_hidden_layers: int = 8
    n_fft: int = 1920
    hop_length: int = 480
    num_mel_bins: int = 128

    def __post_init__(self, **kwargs: Any) -> None:
        """Complete the mel settings so that the saved file states all of them."""
        spec = MelSpec(**(self.mel or {}))
        self.mel = dict(vars(spec))
        if (spec.hop_length, spec.num_mel_bins) != (self.hop_length, self.num_mel_bins):
            raise ValueError(
                f"the vocoder makes {self.hop_length} samples a frame from {self.num_mel_bins} mel bins, but its mel has "
                f"hop {spec.hop_length} and {spec.num_mel_bins} bins; give both the same numbers"
            )
        super().__post_init__(**kwargs)

    @property
    def mel_spec(self) -> MelSpec:
        """The log-mel that this vocoder understands."""
        return MelSpec(**(self.mel or {}))


@strict
class EntangleCodecConfig(PreTrainedConfig):
    r"""EntangleCodec (arXiv 2606.02739). Table 5 states the three widths 768, 512 and 14; the rest is reasoned in `docs/paper.md`.

    Args:
        mel: fields of `MelSpec`, statistics included.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: the audio encoder (`D_enc`, eq. 1–3).
        max_audio_seconds: longest clip that `encode` takes.
        codebook_size, codebook_dim: the cosine codebook, `K` rows of `D_quant` (eq. 6).
        standardise_latents: batch normalisation of `MLP_VQ`'s output while training; an affine map at inference.
        commitment: β of eq. 11.
        conditioning: `"prefix"` puts the codes before the noisy mel (the paper's words), `"add"` adds them (half the cost).
        decoder_*: the Llama-style flow predictor (eq. 7).
        sigma_min: of eq. 9.
        time_zero_share: share of a training batch at exactly t = 0, the only time that one-step sampling visits.
        condition_dropout: share of samples trained without their codes (10 %, Table 5).
        num_steps, guidance_scale: default sampler (eq. 12); guidance 0 is off, the paper's γ = 1 is an argument.
        text_*: the caption tower (eq. 5), dropped after stage 1; `projection_size` is `D_align`.
        contrastive_weight: of the contrastive loss in eq. 8; 0 is the ablation of Table 4.
        logit_scale_init: log of the initial inverse temperature of eq. 10.
        vocoder: a `VocosConfig` (or its fields), or None while there is no vocoder.
    """

    model_type = "entangle_codec"
    mel: dict[str, Any] | None = None
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    rope_theta: float = 10_000.0
    max_audio_seconds: float = 300.0
    codebook_size: int = 16_384
    codebook_dim: int = 14
    standardise_latents: bool = True
    commitment: float = 0.25
    conditioning: Literal["prefix", "add"] = "prefix"
    decoder_hidden_size: int = 1024
    decoder_num_hidden_layers: int = 16
    decoder_num_attention_heads: int = 16
    decoder_intermediate_size: int = 4096
    sigma_min: float = 1e-5
    time_zero_share: float = 0.1
    condition_dropout: float = 0.1
    num_steps: int = 1
    guidance_scale: float = 0.0
    projection_size: int = 512
    text_vocab_size: int = 49_408
    text_max_length: int = 256
    text_hidden_size: int = 512
    text_num_hidden_layers: int = 12
    text_num_attention_heads: int = 8
    text_intermediate_size: int = 2048
    contrastive_weight: float = 1.0
    logit_scale_init: float = 2.6592  # log(1 / 0.07), CLIP's
    vocoder: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Complete the nested settings and check that they fit each other."""
        self.mel = dict(vars(MelSpec(**(self.mel or {}))))
        for part, width, heads in (
            ("hidden_size", self.hidden_size, self.num_attention_heads),
            ("decoder_hidden_size", self.decoder_hidden_size, self.decoder_num_attention_heads),
            ("text_hidden_size", self.text_hidden_size, self.text_num_attention_heads),
        ):
            if width % (2 * heads):
                raise ValueError(
                    f"{part} {width} must be a multiple of twice its {heads} attention heads (rotary pairs)"
                )
        super().__post_init__(**kwargs)

    @property
    def mel_spec(self) -> MelSpec:
        """The log-mel of encoder, decoder and vocoder."""
        return MelSpec(**(self.mel or {}))

    @property
    def vocoder_config(self) -> VocosConfig | None:
        """The vocoder's configuration, if the checkpoint has a vocoder."""
        return None if self.vocoder is None else VocosConfig(**{"mel": self.mel, **self.vocoder})

    @property
    def sampling_rate(self) -> int:
        """Samples per second."""
        return self.mel_spec.sampling_rate

    @property
    def frame_rate(self) -> float:
        """Frames, and so tokens, per second: 50."""
        return self.mel_spec.frame_rate

    @property
    def num_codebooks(self) -> int:
        """Always 1."""
        return 1
