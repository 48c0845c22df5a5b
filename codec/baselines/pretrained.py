"""Baselines that Transformers has: loading, saving and the front end, once for all of them."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import transformers
from torch import Tensor, nn

from codec.base import Waveform
from codec.baselines.base import BaselineCodec, BaselineError, Shape
from codec.entangle import CheckpointError

CODEBOOKS = "codec_num_codebooks"
"""Key of config.json under which a saved baseline remembers how many codebooks it uses."""
_VOLATILE = {"transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path", CODEBOOKS}
_FRONT_END = ("sampling_rate", "hop_length", "normalize_audio", "target_peak_dB_FS")


class TransformersCodec(BaselineCodec):
    """A codec of Transformers and the feature extractor that its checkpoint brings."""

    model_class: ClassVar[str]
    since: ClassVar[str] = "5.20"
    """The first version of Transformers that has the class (5.20: the first that this project supports)."""

    def __init__(self, model: nn.Module, feature_extractor: Any, num_codebooks: int | None = None) -> None:
        remembered = getattr(model.config, CODEBOOKS, None)
        super().__init__(model, self._shape(model), remembered if num_codebooks is None else num_codebooks)
        self.feature_extractor = feature_extractor
        if feature_extractor.sampling_rate != self.sampling_rate:
            raise BaselineError(
                f"the feature extractor is for {feature_extractor.sampling_rate} Hz, {self.name} for {self.sampling_rate} Hz: "
                "the files are of two checkpoints"
            )

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str = "cpu", num_codebooks: int | None = None, revision: str | None = None
    ) -> Self:
        """Load from a folder or a Hub id, in float32 whatever the file holds.

        Raises `CheckpointError` where there is nothing to load or weights are missing, `BaselineError` where the installed
        Transformers lacks the class.
        """
        model_class = getattr(transformers, cls.model_class, None)
        if model_class is None:
            raise BaselineError(
                f"{cls.model_class} needs transformers >= {cls.since}, {transformers.__version__} is installed"
            )
        options = {} if revision is None else {"revision": revision}
        try:
            model, loading = model_class.from_pretrained(path, dtype=torch.float32, output_loading_info=True, **options)
            feature_extractor = cls._load_feature_extractor(path, model, **options)
        except OSError as error:
            raise CheckpointError(
                f"{path} cannot be loaded as {cls.model_class}: neither a folder that holds it nor a Hub id within reach ({error})"
            ) from error
        if missing := sorted(loading["missing_keys"]):
            raise CheckpointError(
                f"{path} lacks {len(missing)} tensors of {cls.model_class} ({', '.join(missing[:3])}, …); Transformers would fill "
                "them with random values, and every load would give other codes"
            )
        return cls(model.to(device), feature_extractor, num_codebooks)

    def save_pretrained(self, path: str | Path) -> None:
        """Write config (with the codebooks in use), weights (safetensors) and preprocessor file into one folder."""
        setattr(self.model.config, CODEBOOKS, self.num_codebooks)
        self.model.save_pretrained(path)
        self.feature_extractor.save_pretrained(path)

    @classmethod
    def _load_feature_extractor(cls, path: str | Path, model: Any, **options: Any) -> Any:
        return transformers.AutoFeatureExtractor.from_pretrained(path, **options)

    def _encode(self, waveform: Waveform) -> Tensor:
        inputs = self.feature_extractor(waveform, sampling_rate=self.sampling_rate, return_tensors="pt")
        return self._model_codes({name: value.to(self.device) for name, value in inputs.items()})[0]

    def _settings(self) -> dict[str, Any]:
        front_end = {key: getattr(self.feature_extractor, key, None) for key in _FRONT_END}
        return {"config": _lasting(self.model.config.to_diff_dict()), "front_end": front_end}

    @classmethod
    @abstractmethod
    def _shape(cls, model: Any) -> Shape:
        """The model's numbers. Raises `BaselineError` for a variant whose codes are not all that its decoder needs."""

    @abstractmethod
    def _model_codes(self, inputs: dict[str, Tensor]) -> Tensor:
        """Codes `(1, ≥ K, T)` of what the feature extractor made of one clip; `input_values` is `(1, 1, S)`."""


def _lasting(config: Any) -> Any:
    """A configuration without what saving, loading or another version of Transformers writes into it."""
    if isinstance(config, dict):
        return {key: _lasting(value) for key, value in config.items() if key not in _VOLATILE}
    return config


def smallest_bandwidth(target_bandwidths: Any, codebooks_of: Any, num_codebooks: int) -> float:
    """The first of the bandwidths (kbit/s, ascending) that gives at least `num_codebooks` codebooks."""
    found: float = next(width for width in target_bandwidths if codebooks_of(width) >= num_codebooks)
    return found
