"""The caption tower of stage 1 (eq. 5), the contrastive loss (eq. 10), and the tokenizer trained on the captions."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.configuration import EntangleCodecConfig
from codec.transformer import Block, RMSNorm

CAPTION_TOKENIZER_FILE = "captions.model"


class CaptionTower(nn.Module):
    """CLIP-shaped causal Transformer; the state at the end-of-text token, projected to `D_align`."""

    def __init__(self, config: EntangleCodecConfig) -> None:
        super().__init__()
        width = config.text_hidden_size
        self.embed = nn.Embedding(config.text_vocab_size, width)
        self.positions = nn.Parameter(torch.empty(config.text_max_length, width))
        self.layers = nn.ModuleList(
            Block(width, config.text_num_attention_heads, config.text_intermediate_size, "gelu")
            for _ in range(config.text_num_hidden_layers)
        )
        self.norm = RMSNorm(width)
        self.project = nn.Linear(width, config.projection_size, bias=False)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Embed captions `(B, L)` of `lengths` `(B,)` (end-of-text included) to `(B, D_align)`.

        Causal attention never looks at the padding behind the end, so no mask is needed.
        """
        x = self.embed(input_ids) + self.positions[: input_ids.shape[1]]
        for layer in self.layers:
            x = layer(x, causal=True)
        end = x[torch.arange(len(x), device=x.device), lengths - 1]
        return self.project(self.norm(end))


def contrastive_loss(audio: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy (eq. 10) over embeddings `(B, D_align)` twice; `logit_scale` is a logarithm.

    Under data parallelism the batch is that of all ranks, gathered with gradients (each rank must bring the same B). The inverse
    temperature is held at 100 or below, as CLIP does. Captions that occur twice in a batch are no negatives of each other: their
    pairs share the target's probability.
    """
    # in bf16 a unit vector's square misses 1 by more than captions differ
    with torch.autocast(audio.device.type, enabled=False):
        a, t = (_of_all_ranks(F.normalize(x.float(), dim=-1)) for x in (audio, text))
        logits = logit_scale.float().clamp(max=4.6052).exp() * a @ t.T
        same = (t.detach() @ t.detach().T > 1 - 1e-6).float()
        target = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _of_all_ranks(x: Tensor) -> Tensor:
    """Rows `(B, D)` of every rank, `(world × B, D)`; gradients flow back to the rank that a row came from."""
    if not torch.distributed.is_initialized() or not torch.is_grad_enabled():
        return x
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(x))


class TokenizedCaptions(NamedTuple):
    """`input_ids` `(B, L)` padded with 0, `lengths` `(B,)` with the end token counted, `truncated`: how many were cut."""

    input_ids: Tensor
    lengths: Tensor
    truncated: int


class CaptionTokenizer:
    """SentencePiece trained on the training captions and kept with the text tower: nothing to download."""

    def __init__(self, model: bytes, max_length: int) -> None:
        from sentencepiece import SentencePieceProcessor

        self._model, self.max_length = model, max_length
        self._processor = SentencePieceProcessor(model_proto=model)

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int, max_length: int) -> "CaptionTokenizer":
        """Train a unigram model of at most `vocab_size` pieces; few captions give fewer pieces."""
        import io

        from sentencepiece import SentencePieceTrainer

        model = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter(captions),
            model_writer=model,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=2,
            minloglevel=2,
            num_threads=1,  # the result depends on the number of threads
        )
        return cls(model.getvalue(), max_length)

    @classmethod
    def load(cls, folder: Path, max_length: int) -> "CaptionTokenizer":
        """Read what `save` wrote."""
        return cls((folder / CAPTION_TOKENIZER_FILE).read_bytes(), max_length)

    def save(self, folder: Path) -> None:
        """Write the SentencePiece model into `folder`."""
        (folder / CAPTION_TOKENIZER_FILE).write_bytes(self._model)

    def __call__(self, captions: Sequence[str]) -> TokenizedCaptions:
        """Tokenise captions; longer ones are cut to `max_length` with their end token kept, and counted."""
        rows = [self._processor.encode(caption) for caption in captions]
        truncated = sum(len(row) + 1 > self.max_length for row in rows)
        ended = [[*row[: self.max_length - 1], self._processor.eos_id()] for row in rows]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in ended], batch_first=True)
        return TokenizedCaptions(ids, torch.tensor([len(row) for row in ended]), truncated)
