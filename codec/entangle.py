"""EntangleCodec behind the codec contract: waveforms of any lengths ⇄ codes, batched by length."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from codec.base import Codes, Waveform
from codec.feature_extraction import EntangleCodecFeatureExtractor
from codec.modeling import EntangleCodecModel

Item = TypeVar("Item")


class CheckpointError(ValueError):
    """A folder or Hub id that does not hold a usable codec: says what is missing and what to do."""


class EntangleCodec:
    """Model and feature extractor as one object that satisfies `codec.base.Codec`."""

    def __init__(
        self,
        model: EntangleCodecModel,
        feature_extractor: EntangleCodecFeatureExtractor | None = None,
        frames_per_batch: int = 16_384,
    ) -> None:
        self.model = model.eval()
        self.feature_extractor = feature_extractor or EntangleCodecFeatureExtractor(mel=model.config.mel)
        self.frames_per_batch = frames_per_batch
        self._fingerprint: str | None = None
        if self.feature_extractor.spec != model.config.mel_spec:
            raise ValueError(
                f"the feature extractor makes mel {self.feature_extractor.spec}, the model was trained on {model.config.mel_spec}"
            )

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str = "cpu") -> "EntangleCodec":
        """Load from a folder or a Hub id, its weights frozen.

        Raises `CheckpointError` where there is nothing to load, or the weights lack any part of the model.
        """
        try:
            model, loading = EntangleCodecModel.from_pretrained(path, output_loading_info=True)
        except OSError as error:
            raise CheckpointError(
                f"{path} is neither a folder with a codec nor a Hub id that can be loaded ({error}). Give a folder written by "
                "recipes/train_codec.py"
            ) from error
        if missing := sorted(loading["missing_keys"]):
            raise CheckpointError(
                f"{path} lacks {len(missing)} tensors of the codec ({', '.join(missing[:3])}, …): not a codec, or of another "
                "version. Transformers would fill them with random values, and every load would give other codes"
            )
        # what trains a part of it says so; weights that stand still are packed (`codec.linear`)
        model.requires_grad_(False)
        return cls(model.to(device), EntangleCodecFeatureExtractor.from_pretrained(path))

    def save_pretrained(self, path: str | Path) -> None:
        """Write config, weights (safetensors) and preprocessor file into one folder."""
        self.model.save_pretrained(path)
        self.feature_extractor.save_pretrained(path)

    @property
    def sampling_rate(self) -> int:
        """Samples per second: 24,000."""
        return self.model.config.sampling_rate

    @property
    def frame_rate(self) -> float:
        """Frames per second: 50."""
        return self.model.config.frame_rate

    @property
    def num_codebooks(self) -> int:
        """1."""
        return 1

    @property
    def codebook_size(self) -> int:
        """Rows of the codebook."""
        return self.model.config.codebook_size

    @property
    def tokens_per_second(self) -> float:
        """50."""
        return self.frame_rate * self.num_codebooks

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over mel, encoder and quantizer: the decoder may be refined without touching a code."""
        if self._fingerprint is None:
            config = self.model.config
            shape = {
                "mel": config.mel_spec.fingerprint,
                "heads": config.num_attention_heads,
                "theta": config.rope_theta,
            }
            hasher = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
            for part in (self.model.encoder, self.model.quantizer):
                for name, value in sorted(part.state_dict().items()):
                    hasher.update(name.encode())
                    hasher.update(value.detach().float().cpu().contiguous().numpy().tobytes())
            self._fingerprint = hasher.hexdigest()[:16]
        return self._fingerprint

    def encode(self, waveforms: Sequence[Waveform]) -> list[Codes]:
        """Codes `(1, T_i)` of waveforms `(S_i,)`; in float32, TF32 off."""

        def encode_batch(batch: list[Waveform]) -> list[Codes]:
            features = self.feature_extractor(batch, sampling_rate=self.sampling_rate).to(self.model.device)
            codes = self.model.encode(**features).audio_codes.cpu().numpy()
            return [row[:, : self._frames(clip)] for row, clip in zip(codes, batch, strict=True)]

        return self._in_batches(waveforms, self._frames, encode_batch)

    def decode(self, codes: Sequence[Codes]) -> list[Waveform]:
        """Waveforms `(T_i × 480,)` of codes `(1, T_i)`."""

        def decode_batch(batch: list[Codes]) -> list[Waveform]:
            device = self.model.device
            padded = torch.zeros(len(batch), 1, max(c.shape[1] for c in batch), dtype=torch.long)
            mask = torch.zeros(len(batch), padded.shape[2], dtype=torch.long)
            for row, clip in enumerate(batch):
                padded[row, 0, : clip.shape[1]] = torch.as_tensor(clip[0])
                mask[row, : clip.shape[1]] = 1
            ragged = None if bool(mask.all()) else mask.to(device)
            values = self.model.decode(padded.to(device), ragged).audio_values[:, 0].float().cpu().numpy()
            hop = self.model.config.mel_spec.hop_length
            return [row[: clip.shape[1] * hop] for row, clip in zip(values, batch, strict=True)]

        for clip in codes:
            if clip.ndim != 2 or clip.shape[0] != 1 or not clip.shape[1]:
                raise ValueError(f"codes of shape (1, T) with T > 0 needed, got {clip.shape}")
        return self._in_batches(codes, lambda clip: clip.shape[1], decode_batch)

    def decode_window(self, codes: Codes, first_frame: int) -> Waveform:
        """Waveform `(T × 480,)` of codes `(1, T)` that begin at `first_frame` of their clip: its noise there, without its context."""
        batch = torch.as_tensor(codes, device=self.model.device)[None]
        with torch.inference_mode(), exact_float32():
            values = self.model.decode(batch, first_frame=first_frame).audio_values
        return values[0, 0].float().cpu().numpy()

    def codebook_vectors(self) -> NDArray[np.float32]:
        """Unit rows of the codebook `(codebook_size, D_quant)`."""
        rows: NDArray[np.float32] = self.model.quantizer.unit_codebook().detach().cpu().numpy()
        return rows

    def _frames(self, waveform: Waveform) -> int:
        return self.model.config.mel_spec.frames(len(waveform))

    @torch.inference_mode()
    def _in_batches(
        self, clips: Sequence[Item], frames: Callable[[Item], int], run: Callable[[list[Item]], list[NDArray[Any]]]
    ) -> list[NDArray[Any]]:
        """Run over length-sorted batches of at most `frames_per_batch` padded frames; results in the given order."""
        results: dict[int, NDArray[Any]] = {}
        with exact_float32():
            for batch in self._batches([frames(clip) for clip in clips]):
                results.update(zip(batch, run([clips[i] for i in batch]), strict=True))
        return [results[i] for i in range(len(clips))]

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
            if batch and lengths[index] * (len(batch) + 1) > self.frames_per_batch:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch


class exact_float32:  # noqa: N801 (reads as the function that it stands for)
    """TF32 off inside, as it was afterwards: it changes codes between GPU generations."""

    def __enter__(self) -> None:
        self._before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = self._before
