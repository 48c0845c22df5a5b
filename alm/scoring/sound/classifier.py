"""Classifiers of sounds by name: what Fréchet distance and KL divergence are computed on, by Transformers' audio classification."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from alm.scoring.sound.base import Found, MetricUnavailable, Waveform, middle, transformers_model

DEFAULT = "MIT/ast-finetuned-audioset-10-10-0.4593"
SECONDS = 10.0
"""Sounds are cropped to their middle, as for CLAP: AST's extractor would take the beginning, others any length."""
SHORTEST = 0.1
"""Seconds; shorter sounds are filled up with zeros, since extractors fail below one window."""


class Heard(NamedTuple):
    """What the classifier's head reads `(D,)`, and its logits `(C,)`."""

    embedding: NDArray[np.float32]
    logits: NDArray[np.float32]


class Classifier:
    """A model of `AutoModelForAudioClassification` with a head called `classifier`, as those of AST, wav2vec 2.0 and their kin have.

    Raises `MetricUnavailable` for another.
    """

    def __init__(self, model: Any, extractor: Any) -> None:
        self.model, self.extractor = model.eval(), extractor
        self.sampling_rate: int = extractor.sampling_rate
        if not hasattr(model, "classifier"):
            raise MetricUnavailable(f"{type(model).__name__} has no head `classifier`; choose another --classifier")

    @torch.inference_mode()
    def hear(self, waveform: Waveform) -> Heard:
        """Embedding and logits of a waveform `(S,)` at `sampling_rate`."""
        cropped = middle(waveform, round(SECONDS * self.sampling_rate))
        cropped = np.pad(cropped, (0, max(0, round(SHORTEST * self.sampling_rate) - len(cropped))))
        inputs = self.extractor(cropped, sampling_rate=self.sampling_rate, return_tensors="pt").to(self.model.device)
        read: list[torch.Tensor] = []
        hook = self.model.classifier.register_forward_pre_hook(lambda module, given: read.append(given[0]))
        try:
            logits = self.model(**inputs).logits
        finally:
            hook.remove()
        return Heard(read[0][0].float().cpu().numpy(), logits[0].float().cpu().numpy())


def find_classifier(name: str = DEFAULT) -> Found:
    """Where a classifier is: a folder, or a Hub id in the local cache. Raises `MetricUnavailable` with the way to get it."""
    return transformers_model(name, "classifier", "--classifier")


def load_classifier(found: Found, device: str = "cpu") -> Classifier:
    """Load what `find_classifier` found."""
    model = AutoModelForAudioClassification.from_pretrained(found.path).to(device)
    return Classifier(model, AutoFeatureExtractor.from_pretrained(found.path))
