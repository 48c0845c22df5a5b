"""Waveform ⇄ codes. Importing this package registers EntangleCodec and Vocos with Transformers' Auto classes."""

from codec.torchaudio_guard import ensure_torchaudio

ensure_torchaudio()  # before Transformers, whose import a torchaudio of another build breaks

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel  # noqa: E402

from codec.configuration import EntangleCodecConfig, VocosConfig  # noqa: E402
from codec.entangle import EntangleCodec  # noqa: E402
from codec.feature_extraction import EntangleCodecFeatureExtractor  # noqa: E402
from codec.modeling import EntangleCodecForPreTraining, EntangleCodecModel  # noqa: E402
from codec.vocoder import VocosModel  # noqa: E402

__all__ = [
    "EntangleCodec",
    "EntangleCodecConfig",
    "EntangleCodecFeatureExtractor",
    "EntangleCodecForPreTraining",
    "EntangleCodecModel",
    "VocosConfig",
    "VocosModel",
]

AutoConfig.register("entangle_codec", EntangleCodecConfig)
AutoConfig.register("vocos", VocosConfig)
AutoModel.register(EntangleCodecConfig, EntangleCodecModel)
AutoModel.register(VocosConfig, VocosModel)
AutoFeatureExtractor.register(EntangleCodecConfig, EntangleCodecFeatureExtractor)
