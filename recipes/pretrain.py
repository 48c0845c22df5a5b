"""Pretrain a language model on audio and text, both ways: describing, transcribing, speaking, making sounds (Table 6: 50k steps at 3e-5).

    accelerate launch recipes/pretrain.py --model runs/demo/base --tokens runs/demo/pairs --output_dir runs/demo/pretrained \\
        --data audiocaps=runs/demo/corpus/audiocaps,audio=runs/demo/corpus/audiocaps/audio libritts=runs/demo/corpus/libritts

--tokens holds the clips of every data set named: recipes/tokenize_corpus.py --audio runs/demo/corpus/audiocaps runs/demo/corpus/libritts ….

A data set is used for the tasks that its texts fit, or for those that it names (libritts=…,tasks=speak+transcribe,weight=2). --replay FILE
keeps a share of text alone, for the language that the model had. --guard FILES keeps test sets' clips out. An interrupted run goes on
when the same command is given again. OUTPUT_DIR ends as a complete checkpoint.
"""

from dataclasses import dataclass, field
from pathlib import Path

from alm.arguments import parse_with_trainer_arguments, run_main
from alm.data.example import CAPTION, TRANSCRIPT
from alm.data.tasks import AUDIO_ONLY, DESCRIBE, MAKE_SOUND, SPEAK, TRANSCRIBE
from alm.training.arguments import DEFAULTS, DataArguments, trainer_arguments
from alm.training.language_model import LanguageModelRun

TASKS = {TRANSCRIPT: (TRANSCRIBE, SPEAK, AUDIO_ONLY), CAPTION: (DESCRIBE, MAKE_SOUND, AUDIO_ONLY)}


@dataclass
class PretrainArguments(DataArguments):
    learning_rate: float = field(default=3e-5, metadata={"help": "highest learning rate (Table 6)"})
    max_steps: int = field(default=50_000, metadata={"help": "optimiser steps (Table 6)"})


def main(argv: list[str] | None = None) -> None:
    args, training = parse_with_trainer_arguments(PretrainArguments, argv, __doc__, trainer_arguments, DEFAULTS)
    LanguageModelRun(args, training, args.data_sets(TASKS), Path(__file__).name).start()


if __name__ == "__main__":
    run_main(main)
