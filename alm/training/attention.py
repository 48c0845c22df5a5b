"""Attention over packed documents without flash-attention: each document by itself, through PyTorch's own kernel.

Transformers' `sdpa` builds a dense T × T mask for a packed row and computes all of it. Here every document is one causal call: the
same numbers, quadratic in a document's length instead of the row's, on any device. Meant for training on packed rows only.
"""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from alm.data.example import DataError

NAME = "sdpa_by_document"


# compiled, it would be compiled anew for every row's lengths
@torch.compiler.disable
def attention_by_document(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each document of one packed row; the signature is Transformers'.

    `query` `(1, heads, T, D_head)`, `key` and `value` `(1, kv_heads, T, D_head)`; `cu_seq_lens_q` `(documents + 1,)` holds where documents
    begin and, last, `T`, as TRL's collator gives it. Returns `(1, T, heads, D_head)`. Raises `ValueError` for any other input:
    without boundaries documents would see each other, and a padded batch its padding.
    """
    if cu_seq_lens_q is None or query.shape[0] != 1 or attention_mask is not None or query.shape[2] != key.shape[2]:
        raise ValueError(
            f"{NAME} is for one packed row with document boundaries (cu_seq_lens_q); for anything else use "
            'model.set_attn_implementation("sdpa")'
        )
    # `split`, not slices: each slice's gradient would be a whole row of zeros
    lengths: list[int] = cu_seq_lens_q.diff().tolist()
    documents = zip(*(whole.split(lengths, dim=2) for whole in (query, key, value)), strict=True)
    grouped = query.shape[1] != key.shape[1]
    parts = [
        F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in documents
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def use_attention_by_document(model: PreTrainedModel) -> None:
    """Switch a model to it. Only in memory: a saved config does not name it."""
    AttentionInterface.register(NAME, attention_by_document)
    model.set_attn_implementation(NAME)


def require_attention(name: str) -> None:
    """Raise `DataError` where --attention names flash-attention and it is not installed."""
    if name == "flash_attention_2" and not is_flash_attn_2_available():
        raise DataError(
            f"--attention {name}: the package flash_attn is not installed, or there is no NVIDIA GPU for it. Install it, or give "
            "--attention auto, which takes what is installed"
        )


def use_attention(model: PreTrainedModel, name: str, use_cpu: bool) -> None:
    """Switch a model to the attention `name` for training on packed rows.

    `auto` is flash-attention 2 where it is installed and the device is an NVIDIA GPU, else `by_document`; any other name is Transformers'.
    Flex attention is not chosen: it compiles for every new shape, and has no gradient on a CPU.
    Raises `DataError` where `name` is not installed.
    """
    require_attention(name)
    if name == "auto":
        flash = torch.cuda.is_available() and not use_cpu and is_flash_attn_2_available()
        name = "flash_attention_2" if flash else "by_document"
    if name == "by_document":
        use_attention_by_document(model)
        return
    model.set_attn_implementation(name)
