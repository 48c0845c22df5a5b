"""Lists of clips for the small codec of docs/results.md, from a folder of read speech and the demo corpus.

    python benchmarks/small_codec_data.py --speech DIR --corpus runs/demo/corpus --output runs/small/data

DIR holds short recordings of one speaker and metadata.csv (file_name,text). Every `--hold_out`-th file is kept for testing; the others
are joined to stretches of about `--join_seconds`, since crops of two seconds out of prompts of one would be half padding. Written are
`speech/metadata.csv`, `demo.csv` (both file_name,caption,transcript: the caption is the rich one, the transcript what is said, empty
where nothing is), `held_out.csv` (file_name,text) and `held_out.txt` (their paths).
"""

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from alm.arguments import parse_arguments, run_main

QUOTED = re.compile(r'"([^"]+)"')


@dataclass
class DataArguments:
    speech: str = field(metadata={"help": "folder with metadata.csv (file_name,text)"})
    corpus: str = field(metadata={"help": "folder of the demo corpus"})
    output: str = field(metadata={"help": "folder to write"})
    speaker: str = field(default="A woman with an American accent", metadata={"help": "who speaks, for the captions"})
    hold_out: int = field(default=6, metadata={"help": "every so manieth file is held out"})
    join_seconds: float = field(default=6.0, metadata={"help": "files are joined until a stretch is so long"})
    pause_seconds: float = field(default=0.25, metadata={"help": "silence between joined files"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(DataArguments, argv, description=__doc__)
    speech, corpus, output = Path(args.speech).resolve(), Path(args.corpus).resolve(), Path(args.output)
    with (speech / "metadata.csv").open(newline="") as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: row["file_name"])
    held_out = rows[:: args.hold_out]
    kept = [row for row in rows if row not in held_out]

    write(output / "held_out.csv", [{**row, "file_name": speech / row["file_name"]} for row in held_out])
    (output / "held_out.txt").write_text("".join(f"{speech / row['file_name']}\n" for row in held_out))
    write(output / "speech" / "metadata.csv", join(kept, speech, output / "speech", args))
    with (corpus / "captions.csv").open(newline="") as lines:
        demo = [
            {
                "file_name": corpus / row["file_name"],
                "caption": row["caption"],
                "transcript": " ".join(QUOTED.findall(row["caption"])),
            }
            for row in csv.DictReader(lines)
        ]
    write(output / "demo.csv", demo)
    print(f"{len(held_out)} recordings held out of {len(rows)}; {len(demo)} clips of the demo corpus")


def join(rows: list[dict[str, str]], folder: Path, output: Path, args: DataArguments) -> list[dict[str, object]]:
    """Write stretches of joined recordings to `output`; returns their rows."""
    output.mkdir(parents=True, exist_ok=True)
    stretches: list[dict[str, object]] = []
    parts: list[np.ndarray] = []
    texts: list[str] = []
    for number, row in enumerate(rows):
        waveform, rate = soundfile.read(folder / row["file_name"], dtype="float32")
        parts += [waveform, np.zeros(round(args.pause_seconds * rate), np.float32)]
        texts.append(row["text"])
        if sum(map(len, parts)) >= args.join_seconds * rate or number == len(rows) - 1:
            name, said = f"{len(stretches):04d}.flac", " ".join(texts)
            soundfile.write(output / name, np.concatenate(parts), rate)
            caption = f'{args.speaker} says: "{said}" The recording is clean, without background noise.'
            stretches.append({"file_name": name, "caption": caption, "transcript": said})
            parts, texts = [], []
    return stretches


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as lines:
        table = csv.DictWriter(lines, rows[0].keys())
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    run_main(main)
