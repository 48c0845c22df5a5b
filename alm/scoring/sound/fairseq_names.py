"""Checkpoints that name their wav2vec 2.0 or WavLM as fairseq does, read into Transformers' classes.

UTMOS, the WavLM speaker verifier and AudioBox Aesthetics were all published so; the layers are the same.
"""

import re
from collections.abc import Mapping

from torch import Tensor

RULES = (
    (r"^mask_emb$", "masked_spec_embed"),
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    # the group norm of the first convolution, or (large models) the layer norm of each, wrapped in two transpositions
    (r"^feature_extractor\.conv_layers\.(\d+)\.2\.(1\.)?", r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^encoder\.pos_conv\.0\.weight_g$", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v$", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"\.self_attn\.grep_linear\.", ".attention.gru_rel_pos_linear."),
    (r"\.self_attn\.grep_a$", ".attention.gru_rel_pos_const"),
    (r"\.self_attn\.relative_attention_bias\.", ".attention.rel_attn_embed."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.self_attn\.", ".attention."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
)


def renamed(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The tensors under `prefix`, by Transformers' names, without the prefix."""
    names = {}
    for name, value in state.items():
        if name.startswith(prefix):
            new = name[len(prefix) :]
            for pattern, replacement in RULES:
                new = re.sub(pattern, replacement, new)
            names[new] = value
    return names
