"""Waveform ⇄ codes. Importing this package registers EntangleCodec and Vocos with Transformers' Auto classes."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from codec.configuration import EntangleCodecConfig, VocosConfig
from codec.entangle import EntangleCodec
from codec.feature_extraction import EntangleCodecFeatureExtractor
from codec.modeling import EntangleCodecForPreTraining, EntangleCodecModel
from codec.vocoder import VocosModel

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
