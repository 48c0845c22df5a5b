"""Mel discriminator of stage 2 (B.3): windows of log-mel of several lengths, each judged by spectrally normalised convolutions.

The paper says that it is pre-trained and frozen, and nothing of its shape. Random windows of several lengths over the mel are
SyntaSpeech's multi-window discriminator (https://github.com/yerfor/SyntaSpeech); spectral norm (Miyato et al., 2018) stands in the
place of its batch norm and dropout, which would make a frozen network differ between training and evaluation.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from codec.mel import MelSpec

Objective = Literal["hinge", "least_squares"]


class DiscriminatorError(ValueError):
    """A discriminator that cannot be had or cannot judge this mel: says what was given and what is needed."""


@strict
class MelDiscriminatorConfig(PreTrainedConfig):
    """Shape of the discriminator.

    Args:
        mel: fields of `MelSpec`, statistics included: those of the codec whose mel it judges.
        windows: frames of each window; `(32, 64, 128)` is 0.64 to 2.56 s at 50 frames per second.
        hidden_size, num_hidden_layers: of the 3 × 3 convolutions of stride 2 over time and mel bins.
        objective: `"hinge"` or `"least_squares"` (LSGAN); the discriminator's loss and the decoder's go together.
    """

    model_type = "mel_discriminator"
    mel: dict[str, Any] | None = None
    windows: list[int] | None = None
    hidden_size: int = 128
    num_hidden_layers: int = 3
    objective: Objective = "hinge"

    def __post_init__(self, **kwargs: Any) -> None:
        """Complete the mel settings and check that strides divide windows and bins."""
        self.mel = dict(vars(MelSpec(**(self.mel or {}))))
        self.windows = [32, 64, 128] if self.windows is None else list(self.windows)
        stride = 2**self.num_hidden_layers
        if not self.windows or any(size < 1 or size % stride for size in [*self.windows, self.mel["num_mel_bins"]]):
            raise DiscriminatorError(
                f"windows {self.windows} and {self.mel['num_mel_bins']} mel bins must be multiples of {stride}: "
                f"{self.num_hidden_layers} layers of stride 2"
            )
        super().__post_init__(**kwargs)

    @property
    def mel_spec(self) -> MelSpec:
        """The log-mel that this discriminator judges."""
        return MelSpec(**(self.mel or {}))


class Window(NamedTuple):
    """Cuts of one length: `size` frames from frame `starts[i]` of clip `rows[i]`, both `(N,)`."""

    size: int
    rows: Tensor
    starts: Tensor


class Judgement(NamedTuple):
    """`scores`: one `(N, patches)` per window size, higher is more real; `features`: hidden maps of the same cuts."""

    scores: list[Tensor]
    features: list[list[Tensor]]


def draw_windows(
    lengths: Sequence[int], sizes: Sequence[int], generator: torch.Generator | None = None
) -> list[Window]:
    """One random cut of each size inside each clip's real frames, `lengths` of them; clips shorter than a size have none of it.

    Drawn on the CPU, from torch's own generator by default: its state lies in a trainer's checkpoints.
    """
    frames, windows = torch.as_tensor(lengths), []
    for size in sizes:
        places = frames - size + 1
        starts = (torch.rand(len(frames), generator=generator) * places.clamp_min(1)).long()
        rows = (places > 0).nonzero()[:, 0]
        windows.append(Window(size, rows, starts[rows]))
    return windows


class WindowDiscriminator(nn.Module):
    """Judges cuts of one length; a score for each stretch of 2^layers frames, over all mel bins."""

    def __init__(self, config: MelDiscriminatorConfig) -> None:
        super().__init__()
        widths = [1] + [config.hidden_size] * config.num_hidden_layers
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, kernel_size=3, stride=2, padding=1)) for a, b in pairwise(widths)
        )
        bins = config.mel_spec.num_mel_bins // 2**config.num_hidden_layers
        # as tall as the map: which frequency a flaw lies at counts
        self.head = spectral_norm(nn.Conv2d(config.hidden_size, 1, kernel_size=(1, bins)))

    def forward(self, cuts: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores `(N, patches)` and hidden maps of cuts `(N, frames, bins)`."""
        x, features = cuts[:, None], []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.head(x).flatten(1), features


class MelDiscriminator(PreTrainedModel):
    """Tells true log-mel from made ones; one `WindowDiscriminator` per window size."""

    config_class = MelDiscriminatorConfig
    base_model_prefix = "discriminator"
    main_input_name = "mel"

    def __init__(self, config: MelDiscriminatorConfig) -> None:
        super().__init__(config)
        self.parts = nn.ModuleList(WindowDiscriminator(config) for _ in self.sizes)
        self.post_init()

    @property
    def sizes(self) -> list[int]:
        """Window sizes in frames."""
        return self.config.windows

    def _init_weights(self, module: nn.Module) -> None:
        """Torch's own initialisation stands: the running vectors of the spectral norm belong to it."""

    def forward(self, mel: Tensor, windows: Sequence[Window]) -> Judgement:
        """Judge cuts of normalised log-mel `(B, T, bins)`; `windows` as `draw_windows` gives them, one per size."""
        scores, features = [], []
        for part, (size, rows, starts) in zip(self.parts, windows, strict=True):
            # also where there is no cut: data parallelism wants a gradient, be it zero, for every parameter
            frames = (starts[:, None] + torch.arange(size)).to(mel.device)
            score, maps = part(mel.float()[rows.to(mel.device)[:, None], frames])
            scores.append(score)
            features.append(maps)
        return Judgement(scores, features)

    def require_mel(self, spec: MelSpec, who: str) -> None:
        """Raise `DiscriminatorError`, with both sides, unless `spec` is the mel that this discriminator was trained on."""
        own = self.config.mel_spec
        if own != spec:
            raise DiscriminatorError(
                f"{who} makes mel {spec.fingerprint} ({spec}), the discriminator was trained on {own.fingerprint} ({own}); train "
                "one on the codec's mel with recipes/train_discriminator.py"
            )


def load_discriminator(path: str | Path, spec: MelSpec) -> MelDiscriminator:
    """A discriminator of the mel `spec` from a folder or a Hub id, frozen. Raises `DiscriminatorError` where there is none."""
    try:
        model, loading = MelDiscriminator.from_pretrained(path, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise DiscriminatorError(
            f"{path}: no mel discriminator can be loaded from there ({error}); recipes/train_discriminator.py makes one"
        ) from error
    if missing := sorted(loading["missing_keys"]):
        raise DiscriminatorError(f"{path} lacks {len(missing)} tensors of a mel discriminator ({missing[0]}, …)")
    model.require_mel(spec, "the codec")
    with torch.no_grad():  # tensors mapped from a file lie where convolutions take another path, which rounds otherwise
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.set_(tensor.clone())
    return model.requires_grad_(False).eval()


def mean_score(scores: Sequence[Tensor]) -> Tensor:
    """Mean `()` over window sizes of each size's mean; sizes without a cut do not count, and 0 is the mean of none."""
    sums = torch.stack([score.float().sum() / max(score.numel(), 1) for score in scores])
    return sums.sum() / max(sum(score.numel() > 0 for score in scores), 1)


def discriminator_loss(real: Sequence[Tensor], made: Sequence[Tensor], objective: Objective) -> Tensor:
    """Loss `()` that teaches scores of true mel up and of made mel down: hinge, or squares around 1 and 0."""
    if objective == "hinge":
        return mean_score([F.relu(1 - s) for s in real]) + mean_score([F.relu(1 + s) for s in made])
    return mean_score([(1 - s).square() for s in real]) + mean_score([s.square() for s in made])


def adversarial_loss(made: Sequence[Tensor], objective: Objective) -> Tensor:
    """Loss `()` that teaches the decoder to be taken for real: `−D(made)` (hinge), or squares around 1."""
    return -mean_score(made) if objective == "hinge" else mean_score([(1 - s).square() for s in made])


def feature_loss(real: Sequence[Sequence[Tensor]], made: Sequence[Sequence[Tensor]]) -> Tensor:
    """L1 between hidden maps `()`, mean over layers and window sizes: "comparing reconstructed … with ground-truth ones" (B.3)."""
    pairs = [(a, b) for maps in zip(real, made, strict=True) for a, b in zip(*maps, strict=True)]
    return mean_score([(b - a.detach()).abs() for a, b in pairs])


AutoConfig.register("mel_discriminator", MelDiscriminatorConfig)
AutoModel.register(MelDiscriminatorConfig, MelDiscriminator)
