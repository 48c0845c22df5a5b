"""Vocos (Siuzdak, 2023) as a Transformers model, with the parameter names of the `vocos` package."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.initialization import constant_, copy_, normal_, zeros_

from codec.configuration import VocosConfig
from codec.linear import Linear
from codec.mel import MelSpec, overlap_add


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zero the padded frames of `(B, D, T)` so that a convolution sees what it sees at a clip's own end."""
    return x if mask is None else x * mask[:, None, :].to(x.dtype)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, pointwise MLP, layer scale, residual."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.dwconv = nn.Conv1d(width, width, kernel_size=7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = Linear(width, config.intermediate_size)
        self.pwconv2 = Linear(config.intermediate_size, width)
        self.gamma = nn.Parameter(torch.ones(width) / config.num_hidden_layers)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, D, T)` to `(B, D, T)`."""
        hidden = self.norm(self.dwconv(_masked(x, mask)).transpose(1, 2))
        hidden = self.gamma * self.pwconv2(F.gelu(self.pwconv1(hidden)))
        return x + hidden.transpose(1, 2)


class VocosBackbone(nn.Module):
    """Embedding convolution and ConvNeXt blocks: mel `(B, bins, T)` to `(B, T, D)`."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.embed = nn.Conv1d(config.num_mel_bins, config.hidden_size, kernel_size=7, padding=3)
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.convnext = nn.ModuleList(ConvNeXtBlock(config) for _ in range(config.num_hidden_layers))
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=1e-6)

    def forward(self, mel: Tensor, mask: Tensor | None) -> Tensor:
        """Backbone features `(B, T, D)`."""
        x = self.norm(self.embed(_masked(mel, mask)).transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            x = block(x, mask)
        return self.final_layer_norm(x.transpose(1, 2))


class InverseSTFT(nn.Module):
    """Holds the synthesis window under the name that the `vocos` package stores it by."""

    window: Tensor

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(config.n_fft))


class ISTFTHead(nn.Module):
    """Magnitude and phase of each frame, inverse STFT with "same" framing: T frames give exactly T × hop samples."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__()
        self.n_fft, self.hop = config.n_fft, config.hop_length
        self.out = Linear(config.hidden_size, config.n_fft + 2)
        self.istft = InverseSTFT(config)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Features `(B, T, D)` to waveforms `(B, T × hop)`; float32 inside."""
        with torch.autocast(hidden.device.type, enabled=False):
            log_magnitude, phase = self.out(hidden).float().chunk(2, dim=-1)
            spectrum = torch.polar(log_magnitude.exp().clamp(max=1e2), phase)
            frames = torch.fft.irfft(spectrum, self.n_fft, dim=-1)  # (B, T, n_fft)
            side = (self.n_fft - self.hop) // 2
            waveform = overlap_add(frames, self.istft.window.float(), self.hop, mask)
            return waveform[:, side : waveform.shape[1] - side]


class VocosModel(PreTrainedModel):
    """Vocoder: normalised log-mel to waveform."""

    config_class = VocosConfig
    base_model_prefix = "vocos"
    main_input_name = "input_features"

    def __init__(self, config: VocosConfig) -> None:
        super().__init__(config)
        self.backbone = VocosBackbone(config)
        self.head = ISTFTHead(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv1d | nn.Linear):
            normal_(module.weight, std=0.02)
            if module.bias is not None:
                zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            constant_(module.weight, 1.0)
            zeros_(module.bias)
        elif isinstance(module, ConvNeXtBlock):
            constant_(module.gamma, 1.0 / self.config.num_hidden_layers)
        elif isinstance(module, InverseSTFT):
            copy_(module.window, torch.hann_window(self.config.n_fft))

    def forward(self, input_features: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Waveforms `(B, T × hop)` of normalised log-mel `(B, T, bins)`; `attention_mask` `(B, T)` is 1 at real frames."""
        hidden = self.backbone(input_features.to(self.dtype).transpose(1, 2), attention_mask)
        return self.head(hidden, attention_mask)

    def require_mel(self, spec: MelSpec, who: str) -> None:
        """Raise `ValueError`, with both fingerprints, unless `spec` is the mel that this vocoder was trained on."""
        own = self.config.mel_spec
        if own.fingerprint != spec.fingerprint:
            raise ValueError(
                f"{who} makes mel {spec.fingerprint} ({spec}), the vocoder was trained on {own.fingerprint} ({own}); "
                "train a vocoder on the codec's mel with recipes/train_vocoder.py"
            )

    @torch.no_grad()
    def adapt(self, spec: MelSpec, who: str) -> None:
        """Understand a mel that differs in its statistics alone: the first convolution takes in the affine map between the two.

        Exact but for the first and last frames, where the convolution's zeros stand for another level now. Raises `ValueError`, as
        `require_mel` does, where the mels differ in more.
        """
        own = self.config.mel_spec
        if replace(own, mean=spec.mean, std=spec.std) != spec:
            self.require_mel(spec, who)
        weight, bias = self.backbone.embed.weight, self.backbone.embed.bias
        bias += weight.sum((1, 2)) * (spec.mean - own.mean) / own.std
        weight *= spec.std / own.std
        self.config.mel = dict(vars(spec))

    @classmethod
    def from_package(cls, path: str | Path, config: VocosConfig) -> "VocosModel":
        """Load a checkpoint of the `vocos` package (its `state_dict`, any feature extractor's keys ignored), tensors only."""
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model = cls(config)
        own = {name: value for name, value in state.items() if name.startswith(("backbone.", "head."))}
        model.load_state_dict(own, strict=True)
        return model
