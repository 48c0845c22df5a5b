"""XY-Tokenizer (Gong et al. 2025, https://arxiv.org/abs/2506.23325): eight codebooks of 1,024 codes at 12.5 frames a second.

Neither Transformers nor the package index has it: the user names a checkout of the authors' repository.
"""

import importlib
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, from_numpy, nn
from torch.nn import functional as F

from codec.base import Waveform
from codec.baselines.base import BaselineCodec, Shape
from codec.baselines.checkout import existing_file, existing_folder, fill, foreign_packages, read_weights

GET = (
    "Get it with: git clone https://github.com/gyt1145028706/XY-Tokenizer && pip install einops librosa pyyaml and a torchaudio that fits "
    "your torch; weights: xy_tokenizer.ckpt of fdugyt/XY_Tokenizer on the Hub; then load_codec('xy-tokenizer', checkout=FOLDER, "
    "checkpoint=FILE), and config=FILE.yaml for another than the checkout's config/xy_tokenizer_config.yaml"
)


class XYTokenizerCheckout(BaselineCodec):
    """`xy_tokenizer.model.XY_Tokenizer` (commit 5df5609 was read): a Whisper-like encoder over windows of 30 s, 20 s apart.

    The original drops what is left of a clip after its last whole frame (80 ms), and with it every shorter clip; here a clip is
    padded with zeros to whole frames, as the model pads it to 30 s anyway.
    """

    decoder_parts = ("post_rvq_adapter.", "upsample.", "acoustic_decoder.", "vocos.")

    def __init__(self, model: nn.Module, settings: dict[str, Any], num_codebooks: int | None = None) -> None:
        foreign: Any = model
        rate, self.hop_length = foreign.sample_rate, foreign.downsample_rate
        shape = Shape(rate, rate / self.hop_length, foreign.nq, foreign.quantizer.codebook_size)
        super().__init__(model, shape, num_codebooks)
        self.settings = settings

    @classmethod
    def load(
        cls,
        checkout: str | Path | None = None,
        device: str = "cpu",
        num_codebooks: int | None = None,
        config: str | Path | None = None,
        checkpoint: str | Path | None = None,
    ) -> "XYTokenizerCheckout":
        """Load from the folder `checkout` with the files `config` (YAML) and `checkpoint`. Raises `CheckpointError`."""
        folder = existing_folder(checkout, "checkout", GET)
        numbers = existing_file(config or folder / "config" / "xy_tokenizer_config.yaml", "config", GET)
        file = existing_file(checkpoint, "checkpoint", GET)
        settings = yaml.safe_load(numbers.read_text(encoding="utf-8"))["generator_params"]
        with foreign_packages(folder, "xy_tokenizer", how_to_get=GET):
            model = importlib.import_module("xy_tokenizer.model").XY_Tokenizer(settings)
        weights = read_weights(file)
        fill(model, weights.get("generator", weights), file)
        return cls(model.to(device), settings, num_codebooks)

    def _encode(self, waveform: Waveform) -> Tensor:
        whole = F.pad(from_numpy(waveform).to(self.device), (0, -len(waveform) % self.hop_length))
        codes: Tensor = self.model.encode([whole], device=self.device)["codes_list"][0]
        return codes

    def _decode(self, codes: Tensor) -> Tensor:
        every = self.model.nq
        self.model.nq = (
            self.num_codebooks
        )  # rows of the tensor that `decode` fills; its quantizer sums what it is given
        try:
            waveform: Tensor = self.model.decode([codes], device=self.device)["syn_wav_list"][0]
        finally:
            self.model.nq = every
        return waveform

    def _codebooks(self) -> list[Tensor]:
        return [layer.codebook for layer in self.model.quantizer.quantizers]

    def _settings(self) -> dict[str, Any]:
        return self.settings
