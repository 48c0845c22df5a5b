"""Flags that every training of a language model has; light, so that `--help` appears at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alm.processing import AudioLanguageProcessor
    from alm.training.held_out_text import HeldOutText
    from alm.training.text_loss import TextLoss


@dataclass
class RunArguments:
    """What is trained, from what to where, how it goes on, and what is measured beside it."""

    model: str = field(metadata={"help": "checkpoint with an audio vocabulary: folder or Hub id"})
    output_dir: str = field(metadata={"help": "folder of the trained model, its checkpoints and its log"})
    tokens: str | None = field(default=None, metadata={"help": "token store of recipes/tokenize_corpus.py"})
    lora_rank: int = field(default=0, metadata={"help": "rank of LoRA; 0: full fine-tuning, as the paper"})
    lora_alpha: int | None = field(default=None, metadata={"help": "LoRA's alpha; twice the rank unless given"})
    text_loss: str | None = field(
        default=None,
        metadata={
            "help": "held-out text, named like --replay's in the recipes: its loss before and after training is reported"
        },
    )
    seed: int = field(default=42, metadata={"help": "seed of the order of data, and of what is drawn"})
    resume_from_checkpoint: str = field(
        default="auto", metadata={"help": "auto (the last checkpoint of OUTPUT_DIR if there is one), true, or a folder"}
    )
    overwrite_output: bool = field(default=False, metadata={"help": "start afresh where OUTPUT_DIR holds a run"})
    dry_run: bool = field(default=False, metadata={"help": "read the data, print the plan, and exit"})

    def __post_init__(self) -> None:
        if self.lora_rank < 0 or (self.lora_rank == 0 and self.lora_alpha is not None):
            raise ValueError(
                f"--lora_rank {self.lora_rank}, --lora_alpha {self.lora_alpha}: LoRA's flags need a --lora_rank of 1 or more; "
                "0 is full fine-tuning"
            )

    def held_out_text(self, processor: "AudioLanguageProcessor") -> "HeldOutText | None":
        """The text of --text_loss, where it is given."""
        from alm.training.held_out_text import HeldOutText

        return None if self.text_loss is None else HeldOutText.read(self.text_loss, processor)

    def add_text_loss(
        self, trainer: Any, processor: "AudioLanguageProcessor", folder: Path, going_on: bool
    ) -> "TextLoss | None":
        """Let a trainer measure --text_loss, where it is given; what is found is kept in `folder`."""
        from alm.training.text_loss import TextLoss

        if (text := self.held_out_text(processor)) is None:
            return None
        measure = TextLoss(trainer, text, processor, folder, going_on)
        trainer.add_callback(measure)
        return measure
