"""Many questions about few clips: what encoding them costs, and what the start of training takes in time and memory.

    OMP_NUM_THREADS=1 python benchmarks/questions_per_clip.py --work DIR [--clips 1000] [--questions 10000 100000]

Makes noise clips, a random tiny codec, a tiny language model and MusicQA files in DIR, tokenises, and prepares the questions as
`recipes/sft_understanding.py` does before its first step, each number of questions in a process of its own.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alm.arguments import parse_arguments, run_main

ROOT = Path(__file__).parents[1]


@dataclass
class QuestionArguments:
    work: str = field(metadata={"help": "folder for everything that is made"})
    clips: int = field(default=1_000, metadata={"help": "clips"})
    seconds: float = field(default=10.0, metadata={"help": "length of a clip"})
    questions: list[int] = field(default_factory=lambda: [10_000, 100_000], metadata={"help": "numbers of questions"})
    prepare: str | None = field(default=None, metadata={"help": "prepare this file, print, exit (used by itself)"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(QuestionArguments, argv, description=__doc__)
    work = Path(args.work)
    if args.prepare:
        prepare(work, Path(args.prepare))
        return
    make(work, args)
    for number in args.questions:
        file = write_questions(work, args.clips, number)
        subprocess.run([sys.executable, __file__, "--work", args.work, "--prepare", str(file)], check=True)


def make(work: Path, args: QuestionArguments) -> None:
    """Clips, codec, tokens and a language model, unless they are there."""
    import numpy as np
    import torch

    from alm.data.tokens_build import build_token_store
    from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel
    from codec.audio import write_audio
    from codec.base import Codes, Waveform

    paths = [work / "audio" / f"{index:05d}.wav" for index in range(args.clips)]
    for index, path in enumerate(path for path in paths if not path.exists()):
        write_audio(path, np.random.default_rng(index).uniform(-0.5, 0.5, round(24_000 * args.seconds)), 24_000)
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    towers = {f"{tower}_{name}": value for tower in ("decoder", "text") for name, value in small.items()}
    config = EntangleCodecConfig(**small, **towers, codebook_size=1024, projection_size=8, text_vocab_size=64)
    EntangleCodec(EntangleCodecModel(config)).save_pretrained(work / "codec")
    encoded = 0

    class Counting(EntangleCodec):
        def encode(self, waveforms: Sequence[Waveform]) -> list[Codes]:
            nonlocal encoded
            encoded += len(waveforms)
            return super().encode(waveforms)

    report = build_token_store(paths, Counting.from_pretrained(work / "codec"), work / "tokens", progress=False)
    print(f"{report.clips} clips in the store, {encoded} encoded now", flush=True)
    if not (work / "model").exists():
        file = write_questions(work, args.clips, 1_000)
        tiny = ROOT / "recipes" / "configs" / "tiny" / "language_model.yaml"
        what = ["--from_config", tiny, "--texts", file, "--codec", work / "codec", "--output", work / "model"]
        command = [sys.executable, ROOT / "recipes" / "extend_vocabulary.py", *what]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def write_questions(work: Path, clips: int, number: int) -> Path:
    """A MusicQA file."""
    words = ("sound", "instrument", "voice", "tempo", "mood", "place")
    rows = [
        {
            "audio_name": f"{index % clips:05d}.wav",
            "conversation": [
                {
                    "from": "human",
                    "value": f"Which {words[index % 6]} is heard at moment {index // clips} of the recording?",
                },
                {"from": "gpt", "value": f"It is {words[index // 7 % 6]} number {index % 97}."},
            ],
        }
        for index in range(number)
    ]
    file = work / f"questions-{number}.json"
    file.write_text(json.dumps(rows))
    return file


def peak() -> float:
    """Highest resident memory, MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def prepare(work: Path, file: Path) -> None:
    """From the questions to the first row of training; and once more, as a run that goes on does."""
    from alm.checkpoint import load_checkpoint
    from alm.data import musicqa
    from alm.data.tokens import TokenStore
    from alm.training.data import DataSet, SequenceOptions, open_rows, write_tables

    _, processor = load_checkpoint(str(work / "model"), check_codec=False)
    folder, options = work / f"tables-{file.stem}", SequenceOptions(2_048)
    shutil.rmtree(folder, ignore_errors=True)
    data = DataSet("musicqa", lambda report: musicqa.read(file, work / "audio", report), str(file), (str(file),))
    Path("/proc/self/clear_refs").write_text("5")  # loading's own peak is not ours
    loaded = peak()
    for start in ("first start", "going on"):
        begun, cpu = time.perf_counter(), time.process_time()
        store = TokenStore.open(work / "tokens")
        report = write_tables([data], processor, store, options, folder).sequences
        rows = open_rows([data], processor, store, options, folder)
        assert len(rows[0]["input_ids"]) <= options.max_length
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        print(
            f"{start}: {report.sequences.total():,} questions, {report.tokens:,} tokens in {len(rows):,} rows: {seconds:.1f} s, "
            f"{cpu:.1f} CPU-s, peak memory +{peak() - loaded:.0f} MB over {loaded:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    run_main(main)
