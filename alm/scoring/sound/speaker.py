"""Speaker similarity: cosine of two embeddings. Three models, three names, three scales that must not share a column."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

from alm.scoring.sound.base import (
    Found,
    Measure,
    Metric,
    MetricUnavailable,
    Values,
    Waveform,
    hub_file,
    load_strictly,
    local,
    package,
)
from alm.scoring.sound.ecapa import WAVLM_LARGE, SpeakerVerifier
from alm.scoring.sound.fairseq_names import renamed

SIM_FILE = "wavlm_large_finetune.pth"
XVECTOR = "microsoft/wavlm-base-plus-sv"
MIN_SAMPLES = 8_000
"""Half a second at 16 kHz: shorter clips have fewer frames than the time-delay layers see at once."""


def similarity(score: str, embed: Callable[[Tensor], Tensor]) -> Measure:
    """Cosine of the embeddings of two waveforms as a measure; NaN under half a second, and for silence, which has no speaker."""

    @torch.inference_mode()
    def measure(reference: Waveform | None, made: Waveform) -> Values:
        assert reference is not None
        if min(len(reference), len(made)) < MIN_SAMPLES or not reference.any() or not made.any():
            return {score: float("nan")}
        first, second = (embed(torch.from_numpy(clip.copy())[None]).flatten() for clip in (reference, made))
        return {score: float(F.cosine_similarity(first, second, dim=0))}

    return measure


def find_sim(path: str | None) -> Found:
    """UniSpeech's verifier: only the user can fetch it, its authors keep it where no program may."""
    if path is None:
        raise MetricUnavailable(
            f"UniSpeech's WavLM-large verifier ({SIM_FILE}) is on Google Drive only: follow the link for WavLM large in "
            "https://github.com/microsoft/UniSpeech/tree/main/downstreams/speaker_verification, then --checkpoints sim=FILE"
        )
    return local(Path(path), SIM_FILE)


def load_verifier(model: SpeakerVerifier, state: dict[str, Tensor], name: str) -> SpeakerVerifier:
    """Fill the verifier from UniSpeech's state; the training loss's own weights are left out, everything else must fit."""
    prefix = "feature_extract.model."
    own = {k: v for k, v in state.items() if not k.startswith(("feature_extract.", "loss_calculator."))}
    inner = {f"wavlm.{key}": value for key, value in renamed(state, prefix).items()}
    load_strictly(model, own | inner, name)
    return model.eval()


def _load_sim(found: Found, device: str) -> Measure:
    assert found.path is not None
    state = torch.load(found.path, map_location="cpu", weights_only=True)["model"]
    model = load_verifier(SpeakerVerifier(WavLMConfig(**WAVLM_LARGE)), state, str(found.path)).to(device)
    return similarity("sim", lambda waveform: model(waveform.to(device)))


def find_xvector(path: str | None) -> Found:
    """Folder of a `WavLMForXVector` with its preprocessor file."""
    if path is None:
        found = hub_file(XVECTOR, "config.json")(None)
        return Found(found.label, found.path and found.path.parent)
    folder = Path(path)
    weights = next((name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file()), None)
    if weights is None or not (folder / "config.json").is_file():
        raise MetricUnavailable(f"{folder} holds no model for speaker vectors (config.json and model.safetensors)")
    return Found(f"{folder.name}, {local(folder, weights).label}", folder)


def _load_xvector(found: Found, device: str) -> Measure:
    assert found.path is not None
    model = WavLMForXVector.from_pretrained(found.path).eval().to(device)
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(found.path)

    def embed(waveform: Tensor) -> Tensor:
        features = extractor(waveform[0].numpy(), sampling_rate=16_000, return_tensors="pt")
        return model(features["input_values"].to(device)).embeddings

    return similarity("sim_xvector", embed)


class Ge2e(nn.Module):
    """Resemblyzer's encoder (Wan et al., 2018): an LSTM over 1.6-s pieces of a 40-band mel of power."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, waveform: Tensor) -> Tensor:
        """Embedding `(256,)` of one waveform `(1, S)` at 16 kHz, raised to -30 dB if softer. Silence is not cut out."""
        level = 10 * waveform.square().mean().clamp_min(1e-20).log10()
        waveform = waveform * 10 ** ((-30 - level).clamp_min(0) / 20)
        frames = -(-(waveform.shape[1] + 1) // 160)
        starts = list(range(0, max(1, frames - 160 + 78), 77))  # 1.3 pieces a second
        if len(starts) > 1 and (waveform.shape[1] - starts[-1] * 160) / 25_600 < 0.75:
            starts.pop()
        padded = F.pad(waveform, (0, max(0, (starts[-1] + 160) * 160 - waveform.shape[1])))
        mel = _mel40(padded[0])
        _, (hidden, _) = self.lstm(torch.stack([mel[start : start + 160] for start in starts]))
        pieces = F.normalize(F.relu(self.linear(hidden[-1])), dim=1)
        return F.normalize(pieces.mean(0), dim=0)


def _mel40(waveform: Tensor) -> Tensor:
    """Mel of power `(T, 40)`, 25-ms windows every 10 ms, centred on a signal continued by zeros (librosa's default)."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(201, 40, 0.0, 8_000.0, 16_000, norm="slaney", mel_scale="slaney")
    window = torch.hann_window(400)
    spectrum = torch.stft(waveform, 400, 160, window=window, center=True, pad_mode="constant", return_complex=True)
    return spectrum.abs().square().T @ torch.from_numpy(bank).float()


def _load_ge2e(found: Found, device: str) -> Measure:
    assert found.path is not None
    file = found.path / "pretrained.pt"
    state = torch.load(file, map_location="cpu", weights_only=True)["model_state"]
    model = Ge2e()
    # the loss's scale and offset
    load_strictly(model, {k: v for k, v in state.items() if not k.startswith("similarity_")}, str(file))
    return similarity("sim_ge2e", model.eval())


SIM = Metric("sim", {"sim": "cosine"}, 16_000, find_sim, _load_sim)
SIM_XVECTOR = Metric("sim_xvector", {"sim_xvector": "cosine"}, 16_000, find_xvector, _load_xvector, stand_in=True)
SIM_GE2E = Metric(
    "sim_ge2e",
    {"sim_ge2e": "cosine"},
    16_000,
    package("resemblyzer", "--no-deps 'resemblyzer>=0.1.4'"),
    _load_ge2e,
    stand_in=True,
)
