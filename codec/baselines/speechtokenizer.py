"""SpeechTokenizer (Zhang et al. 2024, https://arxiv.org/abs/2308.16692), through its package `speechtokenizer`."""

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from torch import Tensor, from_numpy, nn

from codec.base import Waveform
from codec.baselines.base import BaselineCodec, Shape
from codec.baselines.checkout import existing_file, fill, foreign_packages, read_weights
from codec.entangle import CheckpointError

HUB_ID = "fnlp/SpeechTokenizer"
HUB_FILES = ("speechtokenizer_hubert_avg/config.json", "speechtokenizer_hubert_avg/SpeechTokenizer.pt")
# without its dependencies: they are its trainer's, and one of them (torchaudio) breaks Transformers beside a CPU build of torch
INSTALL = "Install it with: pip install --no-deps speechtokenizer==1.0.1 && pip install einops"


class SpeechTokenizerCodec(BaselineCodec):
    """`speechtokenizer.model.SpeechTokenizer`: its first codebook is content, the other seven add the rest."""

    decoder_parts = ("decoder.", "transform.")

    def __init__(self, model: nn.Module, config: dict[str, Any], num_codebooks: int | None = None) -> None:
        rate, hop = config["sample_rate"], 1
        for stride in config["strides"]:
            hop *= stride
        super().__init__(model, Shape(rate, rate / hop, config["n_q"], config["codebook_size"]), num_codebooks)
        self.config = config

    @classmethod
    def load(
        cls,
        device: str = "cpu",
        num_codebooks: int | None = None,
        config: str | Path | None = None,
        checkpoint: str | Path | None = None,
        repository: str = HUB_ID,
        revision: str | None = None,
    ) -> "SpeechTokenizerCodec":
        """Load from the local files `config` (JSON) and `checkpoint`, or from the Hub. Raises `CheckpointError`."""
        spec = importlib.util.find_spec("speechtokenizer")
        if spec is None or not spec.submodule_search_locations:
            raise CheckpointError(f"the package speechtokenizer is not installed. {INSTALL}")
        package = Path(spec.submodule_search_locations[0])
        if config is None and checkpoint is None:
            config, checkpoint = _download(repository, revision)
        advice = "Give both config=FILE.json and checkpoint=FILE, or neither for the ones of the Hub"
        numbers = json.loads(existing_file(config, "config", advice).read_text(encoding="utf-8"))
        file = existing_file(checkpoint, "checkpoint", advice)
        with foreign_packages(package.parent, package.name, how_to_get=INSTALL, bare=True):
            model = importlib.import_module("speechtokenizer.model").SpeechTokenizer(numbers)
        fill(model, read_weights(file), file)
        return cls(model.to(device), numbers, num_codebooks)

    def _encode(self, waveform: Waveform) -> Tensor:
        codes: Tensor = self.model.encode(from_numpy(waveform).to(self.device)[None, None], n_q=self.num_codebooks)
        return codes[:, 0]

    def _decode(self, codes: Tensor) -> Tensor:
        waveform: Tensor = self.model.decode(codes[:, None])
        return waveform[0, 0]

    def _codebooks(self) -> list[Tensor]:
        return [layer.codebook for layer in self.model.quantizer.vq.layers]

    def _settings(self) -> dict[str, Any]:
        return {key: value for key, value in self.config.items() if isinstance(value, str | int | float | bool | list)}


def _download(repository: str, revision: str | None) -> tuple[str, str]:
    from huggingface_hub import hf_hub_download

    try:
        config, checkpoint = (hf_hub_download(repository, name, revision=revision) for name in HUB_FILES)
    except Exception as error:  # its errors share no base class but this
        raise CheckpointError(
            f"{repository} cannot be fetched from the Hub ({error}). Give config=FILE.json and checkpoint=FILE"
        ) from error
    return config, checkpoint
