"""ECAPA-TDNN (Desplanques et al., 2020) over the hidden states of WavLM: UniSpeech's speaker verifier.

Attribute names are those of its checkpoint; widths are arguments, so that a test can build a small one.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import WavLMConfig, WavLMModel

WAVLM_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
"""What sets WavLM large apart from Transformers' defaults, which are the base size."""
SCALE, BOTTLENECK = 8, 128


class SpeakerVerifier(nn.Module):
    """WavLM, a learned mix of its hidden states, ECAPA-TDNN: one embedding a clip."""

    def __init__(self, config: WavLMConfig, channels: int = 512, pooled: int = 1536, embedding: int = 256) -> None:
        super().__init__()
        self.wavlm = WavLMModel(config)
        self.feature_weight = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.layer1 = ConvReluNorm(config.hidden_size, channels, 5, padding=2)
        for n in (2, 3, 4):
            setattr(self, f"layer{n}", Block(channels, dilation=n))
        self.conv = nn.Conv1d(3 * channels, pooled, 1)
        self.pooling = AttentivePool(pooled)
        self.bn = nn.BatchNorm1d(2 * pooled)
        self.linear = nn.Linear(2 * pooled, embedding)

    def forward(self, waveform: Tensor) -> Tensor:
        """Embeddings `(B, D)` of waveforms `(B, S)` at 16 kHz; each is standardised, as WavLM large was trained."""
        output = self.wavlm(F.layer_norm(waveform, waveform.shape[-1:]), output_hidden_states=True)
        # the verifier mixes in the last state behind the encoder's layer norm; whether `hidden_states` ends before or behind it
        # depends on the version of Transformers
        states = torch.stack([*output.hidden_states[:-1], output.last_hidden_state])
        mixed = torch.einsum("l,lbtd->bdt", self.feature_weight.softmax(0), states)
        x = self.layer1(F.instance_norm(mixed + 1e-6))
        outputs = []
        for n in (2, 3, 4):
            x = getattr(self, f"layer{n}")(x)
            outputs.append(x)
        return self.linear(self.bn(self.pooling(F.relu(self.conv(torch.cat(outputs, dim=1))))))


class ConvReluNorm(nn.Module):
    """Convolution, ReLU, batch normalisation, in this order."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=padding)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T)` to `(B, C', T)`."""
        return self.bn(F.relu(self.conv(x)))


class Res2(nn.Module):
    """Res2Net's chain over `SCALE` groups of channels; the last group passes unchanged."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        width = channels // SCALE
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(SCALE - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(SCALE - 1))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T)` to the same shape."""
        groups = x.chunk(SCALE, dim=1)
        outputs: list[Tensor] = []
        for conv, norm, group in zip(self.convs, self.bns, groups[:-1], strict=True):
            outputs.append(norm(F.relu(conv(outputs[-1] + group if outputs else group))))
        return torch.cat([*outputs, groups[-1]], dim=1)


class SqueezeExcite(nn.Module):
    """Channel gates from the mean over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, BOTTLENECK)
        self.linear2 = nn.Linear(BOTTLENECK, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T)` to the same shape."""
        gate = torch.sigmoid(self.linear2(F.relu(self.linear1(x.mean(2)))))
        return x * gate[:, :, None]


class Block(nn.Module):
    """SE-Res2Block with its residual path."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.Conv1dReluBn1 = ConvReluNorm(channels, channels, 1)
        self.Res2Conv1dReluBn = Res2(channels, dilation)
        self.Conv1dReluBn2 = ConvReluNorm(channels, channels, 1)
        self.SE_Connect = SqueezeExcite(channels)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T)` to the same shape."""
        return x + self.SE_Connect(self.Conv1dReluBn2(self.Res2Conv1dReluBn(self.Conv1dReluBn1(x))))


class AttentivePool(nn.Module):
    """Mean and standard deviation over time under learned weights, `(B, C, T)` to `(B, 2C)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv1d(channels, BOTTLENECK, 1)
        self.linear2 = nn.Conv1d(BOTTLENECK, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        weight = self.linear2(torch.tanh(self.linear1(x))).softmax(2)
        mean = (weight * x).sum(2)
        variance = (weight * x.square()).sum(2) - mean.square()
        return torch.cat([mean, variance.clamp_min(1e-9).sqrt()], dim=1)
