"""Fine-tune a language model with an audio vocabulary on questions about audio: MusicQA, ClothoAQA, COMPA-R (Tables 6 and 8).

    accelerate launch recipes/sft_understanding.py --model runs/demo/lm_base --tokens runs/demo/tokens --output_dir runs/demo/lm \\
        --musicqa DATA/FinetuneMusicQA.json --musicqa_audio DATA/audios \\
        --clothoaqa DATA/clotho_aqa_train.csv --clothoaqa_audio DATA/audio_files \\
        --compa_r DATA/compa_r_train.json --compa_r_audio DATA

Any subset of the data sets will do; --model is the output of recipes/extend_vocabulary.py, --tokens of recipes/tokenize_corpus.py.
--replay FILE adds a share of text alone, --text_loss FILE measures held-out text before and after.
An interrupted run goes on from its last checkpoint when the same command is given again. OUTPUT_DIR ends as a complete checkpoint.
With --lora_rank 32 low-rank updates and the rows of the new tokens are trained; OUTPUT_DIR ends as a complete, merged checkpoint all the
same, with the adapter in OUTPUT_DIR/adapter.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from alm.arguments import parse_with_trainer_arguments, run_main
from alm.training.arguments import DEFAULTS, LanguageModelArguments, trainer_arguments
from alm.training.language_model import LanguageModelRun

if TYPE_CHECKING:
    from alm.training.data import DataSet


@dataclass
class UnderstandingArguments(LanguageModelArguments):
    musicqa: str | None = field(default=None, metadata={"help": "MusicQA: FinetuneMusicQA.json"})
    musicqa_audio: str | None = field(default=None, metadata={"help": "MusicQA: folder of the audio"})
    clothoaqa: str | None = field(default=None, metadata={"help": "ClothoAQA: clotho_aqa_train.csv"})
    clothoaqa_audio: str | None = field(default=None, metadata={"help": "ClothoAQA: folder of the audio"})
    clothoaqa_aggregate: str = field(
        default="rows",
        metadata={
            "help": "ClothoAQA: an example per annotator's row, as the paper counts, or per majority answer",
            "choices": ["rows", "majority"],
        },
    )
    compa_r: str | None = field(default=None, metadata={"help": "COMPA-R: compa_r_train.json"})
    compa_r_audio: str | None = field(default=None, metadata={"help": "COMPA-R: folder that holds the audio"})
    learning_rate: float = field(default=1e-5, metadata={"help": "highest learning rate (Table 6)"})
    max_steps: int = field(default=10_000, metadata={"help": "optimiser steps (Table 6)"})
    questions_per_conversation: int = field(
        default=1,
        metadata={
            "help": "most questions about a clip behind one copy of its audio; 1: each with its own, as the paper"
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("musicqa", "clothoaqa", "compa_r"):
            if (getattr(self, name) is None) != (getattr(self, f"{name}_audio") is None):
                raise ValueError(f"--{name} and --{name}_audio go together")
        if not (self.musicqa or self.clothoaqa or self.compa_r or self.machine):
            raise ValueError("name at least one data set: --musicqa, --clothoaqa or --compa_r, each with its _audio")

    @property
    def questions(self) -> int:
        return self.questions_per_conversation


def main(argv: list[str] | None = None) -> None:
    args, training = parse_with_trainer_arguments(UnderstandingArguments, argv, __doc__, trainer_arguments, DEFAULTS)
    LanguageModelRun(args, training, data_sets(args), Path(__file__).name).start()


def data_sets(args: UnderstandingArguments) -> "list[DataSet]":
    from alm.data import clothoaqa, compa_r, musicqa
    from alm.training.data import DataSet

    clotho = partial(clothoaqa.read, aggregate=args.clothoaqa_aggregate)
    readers = {"musicqa": musicqa.read, "clothoaqa": clotho, "compa_r": compa_r.read}
    given = {name: (getattr(args, name), getattr(args, f"{name}_audio")) for name in readers}
    return [
        DataSet(
            name,
            read=lambda report, name=name, file=file, audio=audio: readers[name](file, audio, report, args.max_missing),
            inputs=[file, audio, args.clothoaqa_aggregate],
            files=(file,),
        )
        for name, (file, audio) in given.items()
        if file is not None
    ]


if __name__ == "__main__":
    run_main(main)
