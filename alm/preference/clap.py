"""CLAP by name: how well a sound fits a caption, by Transformers' `ClapModel`."""

from collections.abc import Callable
from pathlib import Path

from alm.scoring.sound.base import Found, MetricUnavailable
from codec.base import Waveform

DEFAULT = "laion/clap-htsat-unfused"


def find_clap(name: str = DEFAULT) -> Found:
    """Where a CLAP is: a folder, or a Hub id in the local cache. Raises `MetricUnavailable` with the way to get it."""
    if (folder := Path(name)).is_dir():
        return Found(folder.name, folder)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    if not isinstance(cached, str):
        raise MetricUnavailable(
            f"the CLAP {name} is neither a folder nor in the local Hub cache: hf download {name} (or --clap FOLDER)"
        )
    return Found(f"{name}@{Path(cached).parent.name}", Path(cached).parent)


def load_clap(found: Found, device: str = "cpu") -> tuple[Callable[[Waveform, str], float], int]:
    """Cosine of a waveform `(S,)` and a text, and the sampling rate it takes."""
    import torch
    from transformers import ClapModel, ClapProcessor

    processor = ClapProcessor.from_pretrained(found.path)
    model = ClapModel.from_pretrained(found.path).eval().to(device)
    rate: int = processor.feature_extractor.sampling_rate

    @torch.inference_mode()
    def similarity(waveform: Waveform, text: str) -> float:
        sound = processor.feature_extractor(waveform, sampling_rate=rate, return_tensors="pt")
        words = processor.tokenizer([text], return_tensors="pt", truncation=True)
        output = model(**{name: value.to(device) for name, value in {**words, **sound}.items()})
        return float((output.audio_embeds * output.text_embeds).sum())

    return similarity, rate
