"""AudioBox Aesthetics (Tjandra et al., 2025): content enjoyment and usefulness, production complexity and quality, 1 to 10."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import WavLMConfig, WavLMModel

from alm.scoring.sound.base import Found, Measure, Metric, Values, Waveform, hub_file, load_strictly
from alm.scoring.sound.fairseq_names import renamed

REPOSITORY = "facebook/audiobox-aesthetics"
AXES = ("CE", "CU", "PC", "PQ")
WINDOW = 160_000
"""Ten seconds at 16 kHz; the last piece of a clip is filled up with zeros and weighs as much as it has sound."""
BATCH = 4


class Aesthetics(nn.Module):
    """WavLM base, for each axis a learned mix of its hidden states, the mean over real frames, and a small perceptron.

    Args:
        wavlm: the base size of Transformers' defaults, unless a test asks for less.
        settings: the Hub folder's `config.json`.
    """

    def __init__(self, wavlm: WavLMConfig, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.wavlm = WavLMModel(wavlm)
        self.normalise = bool(settings.get("normalize_embed", True))
        self.targets = {axis: (float(t["mean"]), float(t["std"])) for axis, t in settings["target_transform"].items()}
        layers = wavlm.num_hidden_layers + 1
        self.layer_weights = nn.ParameterDict({axis: nn.Parameter(torch.zeros(layers)) for axis in AXES})
        self.proj_layer = nn.ModuleDict({axis: _perceptron(wavlm.hidden_size, settings) for axis in AXES})

    def forward(self, windows: Tensor, samples: Tensor) -> dict[str, Tensor]:
        """Scores `(B,)` by axis of windows `(B, S)` of which the first `samples` `(B,)` are sound."""
        frames = (windows.shape[1] - 400) // 320 + 1
        real = (-(-samples // 320)).clamp(1, frames)  # a frame counts while any of its hop is sound
        # Transformers derives the frames from a mask over samples: this many samples give exactly `real` frames
        mask = torch.arange(windows.shape[1], device=windows.device) < (400 + 320 * (real[:, None] - 1))
        states = self.wavlm(windows, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        kept = (torch.arange(frames, device=windows.device) < real[:, None]).to(windows.dtype)[..., None]
        scores = {}
        for axis in AXES:
            mixed = torch.einsum("l,lbtd->btd", self.layer_weights[axis].softmax(0), torch.stack(states))
            mean = (mixed * kept).sum(1) / kept.sum(1)
            score = self.proj_layer[axis](F.normalize(mean, dim=-1) if self.normalise else mean)[:, 0]
            centre, spread = self.targets[axis]
            scores[axis] = score * spread + centre
        return scores

    @torch.inference_mode()
    def score(self, waveform: Tensor) -> dict[str, float]:
        """Scores of one waveform `(S,)` at 16 kHz of any length."""
        pieces = waveform.split(WINDOW)
        samples = torch.tensor([len(piece) for piece in pieces])
        windows = torch.stack([F.pad(piece, (0, WINDOW - len(piece))) for piece in pieces])
        device = self.layer_weights["CE"].device
        parts = [
            self(chosen.to(device), count.to(device))
            for chosen, count in zip(windows.split(BATCH), samples.split(BATCH), strict=True)
        ]
        weight = samples / samples.sum()
        return {axis: float((torch.cat([part[axis] for part in parts]).cpu() * weight).sum()) for axis in AXES}

    def load_released(self, state: Mapping[str, Tensor], name: str) -> None:
        """Read the Hub's state. Raises `MetricUnavailable` for another."""
        own = {key: value for key, value in state.items() if not key.startswith("wavlm_model.")}
        inner = {f"wavlm.{key}": value for key, value in renamed(state, "wavlm_model.").items()}
        load_strictly(self, own | inner, name)


def _perceptron(width: int, settings: Mapping[str, Any]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(int(settings.get("proj_num_layer", 1)) - 1):
        layers.append(nn.Linear(width, width))
        if settings.get("proj_ln", False):
            layers.append(nn.LayerNorm(width))
        layers.append(nn.GELU())
        if settings.get("proj_dropout", 0):
            layers.append(nn.Dropout(settings["proj_dropout"]))
    return nn.Sequential(*layers, nn.Linear(width, 1))


def _load(found: Found, device: str) -> Measure:
    assert found.path is not None
    settings = json.loads(Path(found.path).with_name("config.json").read_text(encoding="utf-8"))
    model = Aesthetics(WavLMConfig(**settings.get("wavlm", {})), settings)
    model.load_released(load_file(found.path), str(found.path))
    model.eval().to(device)

    def measure(reference: Waveform | None, made: Waveform) -> Values:
        return {f"audiobox_{axis.lower()}": value for axis, value in model.score(torch.from_numpy(made.copy())).items()}

    return measure


AUDIOBOX = Metric(
    "audiobox",
    {f"audiobox_{axis.lower()}": "1 to 10" for axis in AXES},
    16_000,
    hub_file(REPOSITORY, "model.safetensors"),
    _load,
    compares=False,
)
