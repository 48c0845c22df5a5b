"""Predictors of the mean opinion score: UTMOS, and DistillMOS under its own name."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from alm.scoring.sound.base import (
    Found,
    Measure,
    Metric,
    MetricUnavailable,
    Values,
    Waveform,
    load_strictly,
    local,
    package,
)
from alm.scoring.sound.fairseq_names import renamed

UTMOS_FILE = "utmos22_strong_step7459_v1.pt"
UTMOS_URL = f"https://github.com/tarepan/SpeechMOS/releases/download/v1.0.0/{UTMOS_FILE}"
MIN_SAMPLES = 400
"""One frame of the convolutions at 16 kHz."""


class Utmos(nn.Module):
    """UTMOS22's strong learner (Saeki et al., 2022) without its phoneme encoder, as in SpeechMOS v1.2.0 and in F5-TTS.

    wav2vec 2.0 base, beside it one domain's and one judge's embedding, a BLSTM, a projection; the mean over frames, × 2 + 3.
    """

    def __init__(self, config: Wav2Vec2Config, embedding: int = 128, recurrent: int = 512, hidden: int = 2048) -> None:
        super().__init__()
        self.wav2vec2 = Wav2Vec2Model(config)
        self.domain_emb = nn.Parameter(torch.zeros(1, embedding))
        self.judge_emb = nn.Parameter(torch.zeros(1, embedding))
        self.blstm = nn.LSTM(config.hidden_size + 2 * embedding, recurrent, batch_first=True, bidirectional=True)
        self.projection = nn.Sequential(nn.Linear(2 * recurrent, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, waveform: Tensor) -> Tensor:
        """Scores `(B,)` from 1 to 5 of waveforms `(B, S)` at 16 kHz, not normalised."""
        frames = self.wav2vec2(waveform).last_hidden_state  # (B, T, D)
        fixed = torch.cat([self.domain_emb, self.judge_emb], dim=1)[:, None].expand(*frames.shape[:2], -1)
        states, _ = self.blstm(torch.cat([frames, fixed], dim=2))
        return self.projection(states).mean(dim=1)[:, 0] * 2 + 3

    def load_speechmos(self, state: dict[str, Tensor], name: str) -> None:
        """Read a state of SpeechMOS. Raises `MetricUnavailable` for another."""
        own = {key: value for key, value in state.items() if not key.startswith("wav2vec2.")}
        inner = {f"wav2vec2.{key}": value for key, value in renamed(state, "wav2vec2.").items()}
        # of pre-training only; not every Transformers version makes it for an inference model
        wanted = self.state_dict()
        load_strictly(
            self, {k: v for k, v in (own | inner).items() if not k.endswith("spec_embed") or k in wanted}, name
        )


def find_utmos(path: str | None) -> Found:
    """The checkpoint in torch.hub's cache, or the user's."""
    if path is not None:
        return local(Path(path), UTMOS_FILE)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / UTMOS_FILE
    if not cached.is_file():
        raise MetricUnavailable(
            f"the checkpoint of UTMOS is not in torch.hub's cache: curl -L --create-dirs -o {cached} {UTMOS_URL} "
            "(or --checkpoints utmos=FILE)"
        )
    return Found(f"SpeechMOS v1.0.0 {UTMOS_FILE}", cached)


def _load_utmos(found: Found, device: str) -> Measure:
    assert found.path is not None
    model = Utmos(Wav2Vec2Config())  # Transformers' defaults are the base size
    model.load_speechmos(torch.load(found.path, map_location="cpu", weights_only=True), str(found.path))
    return listener(model.eval().to(device), "utmos")


def listener(model: nn.Module, score: str) -> Measure:
    """A model from waveforms `(1, S)` to one score as a measure; NaN for clips shorter than a frame."""
    device = next(model.parameters()).device

    @torch.inference_mode()
    def measure(reference: Waveform | None, made: Waveform) -> Values:
        if len(made) < MIN_SAMPLES:
            return {score: float("nan")}
        return {score: float(model(torch.from_numpy(made.copy())[None].to(device)).reshape(()))}

    return measure


def _find_distillmos(path: str | None) -> Found:
    install = "--no-deps 'distillmos>=0.9.1' xls-r-sqa"
    package("xls_r_sqa", install)(path)
    return package("distillmos", install)(path)


def _load_distillmos(found: Found, device: str) -> Measure:
    with _without_torchaudio():
        distillmos = importlib.import_module("distillmos")
    return listener(distillmos.ConvTransformerSQAModel().eval().to(device), "distillmos")


@contextmanager
def _without_torchaudio() -> Iterator[None]:
    """An empty torchaudio while a module is imported that names it at its top and uses it only to read files, which we do.

    The real one is CUDA-linked on the package index: beside a CPU build of torch its import fails, and its presence breaks
    Transformers.
    """
    if "torchaudio" in sys.modules:
        yield
        return
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    try:
        yield
    finally:
        del sys.modules["torchaudio"]


UTMOS = Metric("utmos", {"utmos": "MOS, 1 to 5"}, 16_000, find_utmos, _load_utmos, compares=False)
DISTILLMOS = Metric(
    "distillmos",
    {"distillmos": "MOS, 1 to 5"},
    16_000,
    _find_distillmos,
    _load_distillmos,
    compares=False,
    stand_in=True,
)
