"""CLAP by name: how well a sound fits a caption, by Transformers' `ClapModel`."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import ClapModel, ClapProcessor

from alm.scoring.sound.base import Found, Waveform, middle, transformers_model

DEFAULT = "laion/clap-htsat-unfused"
Embedding = NDArray[np.float32]


class Clap:
    """Embeddings of length 1, `(D,)`, of sounds and texts; their dot product is the score.

    A sound longer than the model takes (10 s) is cropped to its middle. Left to itself the feature extractor draws the crop at random
    (https://github.com/LAION-AI/CLAP/issues/166: 0.29 to 0.99 for one clip), and with fused checkpoints marks a short clip at random
    as a long one; here a clip has one score, whatever is scored beside it.
    """

    def __init__(self, model: ClapModel, processor: ClapProcessor) -> None:
        self.model, self.tokenizer, self.extractor = model.eval(), processor.tokenizer, processor.feature_extractor
        self.sampling_rate: int = self.extractor.sampling_rate
        self.longest: int = self.extractor.nb_max_samples

    def similarity(self, waveform: Waveform, text: str) -> float:
        """Cosine of a waveform `(S,)` at `sampling_rate` and a text, in [-1, 1]."""
        return float(self.sound(waveform) @ self.text(text))

    @torch.inference_mode()
    def sound(self, waveform: Waveform) -> Embedding:
        """Embedding of a waveform `(S,)` at `sampling_rate`."""
        cropped = middle(waveform, self.longest)
        features = self.extractor(cropped, sampling_rate=self.sampling_rate, return_tensors="pt")
        features["is_longer"] = torch.zeros(1, 1, dtype=torch.bool)
        return self._unit(self.model.get_audio_features(**features.to(self.model.device)))

    @torch.inference_mode()
    def text(self, text: str) -> Embedding:
        """Embedding of a text; what exceeds the text model's length is cut."""
        words = self.tokenizer([text], return_tensors="pt", truncation=True)
        return self._unit(self.model.get_text_features(**words.to(self.model.device)))

    def _unit(self, output: Any) -> Embedding:
        vector = output.pooler_output[0].float()
        embedding: Embedding = (vector / vector.norm()).cpu().numpy()
        return embedding


def find_clap(name: str = DEFAULT) -> Found:
    """Where a CLAP is: a folder, or a Hub id in the local cache. Raises `MetricUnavailable` with the way to get it."""
    return transformers_model(name, "CLAP", "--clap")


def load_clap(found: Found, device: str = "cpu") -> Clap:
    """Load what `find_clap` found."""
    return Clap(ClapModel.from_pretrained(found.path).to(device), ClapProcessor.from_pretrained(found.path))
