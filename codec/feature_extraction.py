"""Waveforms to a padded batch of normalised log-mel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BatchFeature
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from codec.mel import MelSpec, log_mel


class EntangleCodecFeatureExtractor(SequenceFeatureExtractor):
    """Log-mel **per utterance first**, then padding: padding the waveform would change every clip's last frame."""

    model_input_names: list[str] = ["input_features", "attention_mask"]  # noqa: RUF012 (Transformers' own form)

    def __init__(self, mel: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.mel = dict(vars(MelSpec(**(mel or {}))))
        # the parent counts features and pads with this value; it knows nothing of our mel
        own = {
            "feature_size": self.mel["num_mel_bins"],
            "sampling_rate": self.mel["sampling_rate"],
            "padding_value": 0.0,
        }
        super().__init__(**{**kwargs, **own})

    @property
    def spec(self) -> MelSpec:
        """The log-mel settings."""
        return MelSpec(**self.mel)

    def __call__(
        self,
        raw_audio: NDArray[np.float32] | Sequence[NDArray[np.float32]],
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Extract features of one waveform `(S,)` or a list of them.

        Returns `input_features` `(B, T, bins)` float32 and, where lengths differ, `attention_mask` `(B, T)` (1 at real frames).
        Raises `ValueError` on a missing or different sampling rate, an empty clip, or one that is not mono.
        """
        if sampling_rate != self.spec.sampling_rate:
            raise ValueError(
                f"sampling_rate={sampling_rate} given, {self.spec.sampling_rate} needed: resample first "
                "(codec.audio.read_audio does it) and pass sampling_rate, so that a mistake cannot go unheard"
            )
        if return_tensors != "pt":
            raise ValueError(f'return_tensors="pt" is what there is, got {return_tensors!r}')
        clips = [raw_audio] if isinstance(raw_audio, np.ndarray) and raw_audio.ndim == 1 else list(raw_audio)
        mels = []
        for number, clip in enumerate(clips):
            waveform = torch.as_tensor(np.asarray(clip, dtype=np.float32))
            if waveform.ndim != 1 or not len(waveform):
                raise ValueError(
                    f"clip {number} has shape {tuple(waveform.shape)}; a mono waveform (S,) with S > 0 is needed"
                )
            mels.append(log_mel(waveform, self.spec))
        lengths = [len(mel) for mel in mels]
        batch = {"input_features": torch.nn.utils.rnn.pad_sequence(mels, batch_first=True)}
        if len(set(lengths)) > 1:
            batch["attention_mask"] = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        return BatchFeature(batch)
