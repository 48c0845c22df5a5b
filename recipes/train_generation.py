"""Train a language model to speak and to make sounds: TTS and TTA, one of them or both in one model (Table 6: 3 epochs, batch 256, 3e-5).

    accelerate launch recipes/train_generation.py --model runs/demo/base --tokens runs/demo/pairs --output_dir runs/demo/speaker \\
        --data libritts=runs/demo/corpus/libritts audiocaps=runs/demo/corpus/audiocaps,audio=runs/demo/corpus/audiocaps/audio

--tokens holds the clips of every data set named: recipes/tokenize_corpus.py --audio runs/demo/corpus/audiocaps runs/demo/corpus/libritts ….

Data sets of transcripts are spoken (TTS: LibriSpeech, LibriTTS), those of captions become sounds (TTA: AudioCaps, IFCaps). Held-out
texts given as --samples "speak=Good morning." "sound=a dog barks" become WAV files and pictures during training. --replay FILE keeps a
share of text alone. An interrupted run goes on when the same command is given again. OUTPUT_DIR ends as a complete checkpoint.
"""

from dataclasses import dataclass, field
from pathlib import Path

from alm.arguments import parse_with_trainer_arguments, run_main
from alm.data.example import CAPTION, TRANSCRIPT
from alm.data.tasks import MAKE_SOUND, SPEAK
from alm.training.arguments import DEFAULTS, DataArguments, trainer_arguments
from alm.training.language_model import LanguageModelRun

TASKS = {TRANSCRIPT: (SPEAK,), CAPTION: (MAKE_SOUND,)}


@dataclass
class GenerationArguments(DataArguments):
    learning_rate: float = field(default=3e-5, metadata={"help": "highest learning rate (Table 6)"})
    num_train_epochs: float = field(default=3.0, metadata={"help": "passes over the data (Table 6)"})


def main(argv: list[str] | None = None) -> None:
    args, training = parse_with_trainer_arguments(GenerationArguments, argv, __doc__, trainer_arguments, DEFAULTS)
    LanguageModelRun(args, training, args.data_sets(TASKS), Path(__file__).name).start()


if __name__ == "__main__":
    run_main(main)
