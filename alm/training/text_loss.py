"""What a model still knows of text: its loss on held-out text before the first step and after the last.

Two means over the same tokens, in nats: over the whole vocabulary, as Transformers computes it, and among the text rows alone. A model
that has just been grown gives its new rows some probability, which the first includes and training takes away again; the second is the
loss of the model before it was grown, so that its rise is what was forgotten.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from transformers import Trainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from alm.data.example import DataError
from alm.encoding import IGNORED
from alm.processing import AudioLanguageProcessor
from alm.training.before_after import BeforeAndAfter
from alm.training.held_out_text import HeldOutText, Row

RECORD = "text_loss.json"


def text_loss(model: torch.nn.Module, text: HeldOutText, text_rows: int, accelerator: Accelerator) -> dict[str, float]:
    """`loss` and `perplexity` over all rows of the vocabulary, `loss_among_text` and `perplexity_among_text` over the first `text_rows`.

    All processes call it together and go through the model equally often, as sharded weights need; each sums its own share. Each
    row's loss is its own, whatever stands beside it. The model is left as it was found.
    """
    training, sums = model.training, np.zeros(2)
    model.eval()
    try:
        for first in range(0, len(text.rows), accelerator.num_processes):
            number = first + accelerator.process_index
            found = _summed(model, text.rows[number % len(text.rows)], text_rows, accelerator.device)
            sums += found if number < len(text.rows) else 0
    finally:
        model.train(training)
    totals: Any = accelerator.reduce(torch.tensor(sums, dtype=torch.float32, device=accelerator.device))
    loss, among = (total / text.tokens for total in totals.tolist())
    return {
        "loss": loss,
        "perplexity": math.exp(loss),
        "loss_among_text": among,
        "perplexity_among_text": math.exp(among),
    }


@torch.no_grad()
def _summed(model: torch.nn.Module, row: Row, text_rows: int, device: torch.device) -> Any:
    """Summed negative log-likelihoods `(2,)` of a row's labelled tokens: over all rows of the vocabulary, and among text's."""
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)([row])
    inputs = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
    following = inputs.pop("labels")[0, 1:]
    positions = (following != IGNORED).nonzero().flatten()
    logits = model(**inputs, use_cache=False, logits_to_keep=positions).logits[0].float()
    chosen = logits.gather(1, following[positions, None])[:, 0]
    losses = (logits.logsumexp(1) - chosen, logits[:, :text_rows].logsumexp(1) - chosen)
    return np.array([np.sum(loss.cpu().numpy(), dtype=np.float64) for loss in losses])


class TextLoss(BeforeAndAfter):
    """The loss of held-out text, logged too. `found` has its `source`, `tokens` and `digest` beside what `text_loss` gives."""

    def __init__(
        self, trainer: Trainer, text: HeldOutText, processor: AudioLanguageProcessor, folder: Path, going_on: bool
    ) -> None:
        """Raises `DataError` where the run that goes on began with other text."""
        super().__init__(trainer, folder / RECORD, going_on)
        self.text, self.text_rows = text, processor.vocabulary.start_id
        known = self.found
        if known.get("digest", text.digest) != text.digest:
            raise DataError(
                f"--text_loss {text.source} holds other text (digest {text.digest}) than {known['source']} (digest {known['digest']}), "
                "which this run began with: its loss before and after could not be compared. Restore it, or leave --text_loss out"
            )
        self.found = {"source": text.source, "tokens": text.tokens, "digest": text.digest, **known}

    def measured(self) -> dict[str, float]:
        """`text_loss` of the model."""
        found = text_loss(self.trainer.model_wrapped, self.text, self.text_rows, self.trainer.accelerator)
        # not the trainer's own: it would give out, and begin anew, the averages of the steps
        Trainer.log(self.trainer, {f"text_{name}": value for name, value in found.items()})
        return found

    def __str__(self) -> str:
        """One line for the end of a run."""
        names = ("loss_among_text", "perplexity_among_text", "loss", "perplexity")
        before, after = (self.found[when] for when in ("before", "after"))
        changes = [f"{_number(before, name)} → {_number(after, name)}" for name in names]
        return (
            f"text loss      {changes[0]} nats a token among text rows (perplexity {changes[1]}); over the whole vocabulary {changes[2]} "
            f"({changes[3]}); {self.found['tokens']:,} tokens of {self.found['source']}"
        )


def _number(found: dict[str, float] | None, name: str) -> str:
    return "not measured" if found is None else f"{found[name]:.4g}"
