"""Speech recognisers by name, for word error rates: Transformers' models, Whisper in CTranslate2's form, Paraformer, PocketSphinx."""

import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alm.scoring.sound.base import Found, MetricUnavailable, Waveform, local, package

SAMPLING_RATE = 16_000
DEFAULT = "openai/whisper-large-v3"
PARAFORMER, POCKETSPHINX, GRAMMAR = "funasr/paraformer-zh", "pocketsphinx", ".jsgf"
MIN_SAMPLES = 400
"""One window of Whisper's features; shorter clips are heard as silence."""


@dataclass(frozen=True)
class Recogniser:
    """A loaded recogniser: `label` names model and revision, and belongs beside every word error rate."""

    label: str
    hear: Callable[[Waveform], str]

    def __call__(self, waveform: Waveform) -> str:
        """Text of a waveform `(S,)` at 16 kHz; greedy, without context from clip to clip."""
        return self.hear(waveform).strip() if len(waveform) >= MIN_SAMPLES else ""


def find_recogniser(name: str = DEFAULT) -> Found:
    """Where a recogniser is, without loading or downloading anything: a folder, or a Hub id in the local cache.

    Also `pocketsphinx`, whose wheel brings its English model, and a grammar for it (a JSGF file, the sentences that can be heard).
    Raises `MetricUnavailable` with the way to get it.
    """
    if name == POCKETSPHINX or Path(name).suffix == GRAMMAR:
        label = package("pocketsphinx", "'pocketsphinx>=5.0' (the extra `sphinx`)")(None).label
        return Found(label) if name == POCKETSPHINX else Found(f"{label}, {local(Path(name), '').label}", Path(name))
    if (folder := Path(name)).is_dir():
        if is_ctranslate2(folder):
            package("faster_whisper", "'faster-whisper>=1.2'")(None)
            return Found(f"faster-whisper {local(folder, 'model.bin').label}", folder)
        if is_funasr(folder):
            return Found(f"{_funasr_package()}, {local(folder, 'model.pt').label}", folder)
        return Found(f"{folder.name}, sha256 {_digest(folder)}", folder)
    from huggingface_hub import try_to_load_from_cache

    if name == PARAFORMER:
        _funasr_package()
    cached = try_to_load_from_cache(name, "model.pt" if name == PARAFORMER else "config.json")
    if not isinstance(cached, str):
        raise MetricUnavailable(
            f"the recogniser {name} is neither a folder nor in the local Hub cache: hf download {name} (or --asr FOLDER)"
        )
    return Found(f"{name}@{Path(cached).parent.name}", Path(cached).parent)


def _digest(folder: Path) -> str:
    """Of configuration and weights: two recognisers of one architecture are not the same."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256(" ".join(local(file, file.name).label for file in files).encode()).hexdigest()[:16]


def load_recogniser(found: Found, device: str = "cpu", language: str = "en") -> Recogniser:
    """Load what `find_recogniser` found. Multilingual Whispers are told the `language`; others know one.

    Raises `MetricUnavailable` where PocketSphinx, which knows English, is to hear another language.
    """
    if found.path is None or found.path.suffix == GRAMMAR:
        return Recogniser(found.label, _pocketsphinx(found.path, language))
    forms = ((is_ctranslate2, _faster_whisper), (is_funasr, _funasr), (is_ctc, _ctc))
    load = next((load for holds, load in forms if holds(found.path)), _transformers)
    return Recogniser(found.label, load(found.path, device, language))


def is_ctranslate2(folder: Path) -> bool:
    """Whether a folder holds a model of CTranslate2 rather than of Transformers."""
    return (folder / "model.bin").is_file() and not list(folder.glob("*.safetensors"))


def is_funasr(folder: Path) -> bool:
    """Whether a folder holds a model of FunASR."""
    return (folder / "model.pt").is_file() and (folder / "config.yaml").is_file()


def is_ctc(folder: Path) -> bool:
    """Whether a folder of Transformers holds an encoder with a CTC head (wav2vec 2.0, HuBERT, …)."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return any(name.endswith("ForCTC") for name in config.get("architectures") or ())


def _funasr_package() -> str:
    return package("funasr", "'funasr[knf]>=1.4.16' (the extra `zh`)")(None).label


def _faster_whisper(folder: Path, device: str, language: str) -> Callable[[Waveform], str]:
    whisper = importlib.import_module("faster_whisper")
    kind, _, number = device.partition(":")
    settings = {"device": kind, "device_index": int(number or 0), "compute_type": "default", "cpu_threads": 1}
    model = whisper.WhisperModel(str(folder), **settings)

    def hear(waveform: Waveform) -> str:
        options = {"language": language, "beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}
        segments, _ = model.transcribe(waveform, **options, without_timestamps=True)
        return " ".join(segment.text.strip() for segment in segments)

    return hear


def _transformers(folder: Path, device: str, language: str) -> Callable[[Waveform], str]:
    import torch
    from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    # whisper-large-v3 is stored in float16, which its features are not; float32 is what the published figures were heard in
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder, dtype=torch.float32).eval().to(device)
    multilingual = getattr(model.generation_config, "is_multilingual", False)
    options = {"language": language, "task": "transcribe"} if multilingual else {}

    @torch.inference_mode()
    def hear(waveform: Waveform) -> str:
        inputs = processor(
            waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt", return_attention_mask=True, truncation=False
        ).to(device)
        ids = model.generate(**inputs, do_sample=False, num_beams=1, **options)  # over 30 s by Whisper's own long form
        text: str = processor.batch_decode(ids, skip_special_tokens=True)[0]
        return text

    return hear


def _ctc(folder: Path, device: str, language: str) -> Callable[[Waveform], str]:
    import torch
    from transformers import AutoModelForCTC, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForCTC.from_pretrained(folder, dtype=torch.float32).eval().to(device)

    @torch.inference_mode()
    def hear(waveform: Waveform) -> str:
        inputs = processor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt").to(device)
        text: str = processor.batch_decode(model(**inputs).logits.argmax(-1))[0]
        return text

    return hear


def _funasr(folder: Path, device: str, language: str) -> Callable[[Waveform], str]:
    model = importlib.import_module("funasr").AutoModel(
        model=str(folder), device=device, disable_update=True, disable_pbar=True
    )

    def hear(waveform: Waveform) -> str:
        found = model.generate(input=waveform, fs=SAMPLING_RATE, batch_size_s=300)
        return str(found[0]["text"]) if found else ""

    return hear


def _pocketsphinx(grammar: Path | None, language: str) -> Callable[[Waveform], str]:
    if language != "en":
        raise MetricUnavailable(f"PocketSphinx' wheel knows English alone, not {language!r}: choose another --asr")
    from codec.audio import pcm16

    words = {} if grammar is None else {"lm": None, "jsgf": str(grammar)}
    # cmn: each clip less its own mean; the default's mean drifts from clip to clip
    options = {"samprate": SAMPLING_RATE, "cmn": "batch", "loglevel": "FATAL"}
    decoder = importlib.import_module("pocketsphinx").Decoder(**options, **words)

    def hear(waveform: Waveform) -> str:
        decoder.start_utt()
        decoder.process_raw(pcm16(waveform).tobytes(), no_search=False, full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""

    return hear
