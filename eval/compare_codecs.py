"""Reconstruction by several codecs in one table, the paper's eight baselines at its operating points among them (Tables 1 and 2).

    python eval/compare_codecs.py --codecs runs/demo/codec --audio DIR --output_dir runs/codecs
    python eval/compare_codecs.py --codecs runs/demo/codec mimi:8 dac:12 --baselines false --audio DIR

Each codec is measured by eval/reconstruction.py in a process of its own (NAME.json and NAME.txt in OUTPUT_DIR; NAME:K keeps K codebooks);
the same command goes on where it was interrupted. A codec that cannot be measured is a row with the reason; that none can is an error.
The table is printed and written to OUTPUT_DIR/table.md.
"""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from alm.arguments import parse_arguments, run_main
from alm.data.example import DataError

SCRIPT = Path(__file__).with_name("reconstruction.py")


@dataclass
class CompareCodecsArguments:
    audio: list[str] = field(metadata={"help": "folders of recordings, or text files that list them"})
    codecs: list[str] = field(
        default_factory=list, metadata={"help": "folders, Hub ids, names or YAML descriptions of codecs; NAME:K"}
    )
    baselines: bool = field(default=True, metadata={"help": "the paper's eight baselines, too, at its codebooks"})
    metrics: list[str] = field(default_factory=list, metadata={"help": "metrics; default: all that are not stand-ins"})
    checkpoints: list[str] = field(default_factory=list, metadata={"help": "METRIC=PATH, as for reconstruction.py"})
    transcripts: str | None = field(default=None, metadata={"help": "CSV file (file_name,text), for word error rates"})
    asr: str = field(default="openai/whisper-large-v3", metadata={"help": "recogniser"})
    limit: int | None = field(default=None, metadata={"help": "about so many recordings of each folder"})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, …"})
    output_dir: str = field(default="runs/codecs", metadata={"help": "folder of results and table"})
    dry_run: bool = field(default=False, metadata={"help": "print the commands and stop"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(CompareCodecsArguments, argv, description=__doc__)
    from alm.scoring.sound.table import compare

    output = Path(args.output_dir)
    rows = [(name, command(codec, books, args, output / f"{name}.json")) for name, codec, books in chosen(args)]
    if args.dry_run:
        print("\n".join(f"python {' '.join(words[1:])}" for _, words in rows))
        return
    output.mkdir(parents=True, exist_ok=True)
    reasons: dict[str, str] = {}
    for name, words in rows:
        print(f"{name} …", file=sys.stderr, flush=True)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        (output / f"{name}.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode:
            reasons[name] = f"{reason(done.stderr) or f'exit status {done.returncode}'} … ({name}.txt)"
    if len(reasons) == len(rows):
        raise DataError(f"none of the codecs could be measured. The first, {rows[0][0]}: {reasons[rows[0][0]]}")
    table = compare({name: output / f"{name}.json" for name, _ in rows}, reasons)
    (output / "table.md").write_text(table + "\n", encoding="utf-8")
    print(table)


def reason(stderr: str) -> str:
    """The beginning of a script's own message ("error: …"), or the last line of a crash."""
    _, own, told = f"\n{stderr}".rpartition("\nerror: ")
    return " ".join(told.split())[:160] if own else stderr.strip().rpartition("\n")[2][-160:]


def chosen(args: CompareCodecsArguments) -> list[tuple[str, str, int | None]]:
    """Name in the table, codec and number of codebooks of each row; the user's own first. Raises `DataError` for one name twice."""
    from codec.zoo import BASELINES

    rows: list[tuple[str, str, int | None]] = []
    for word in args.codecs:
        codec, colon, books = word.rpartition(":")
        count = int(books) if colon and books.isdigit() else None
        codec = codec if count is not None else word
        name = codec.strip("/").replace("/", "_")
        rows.append((name if count is None else f"{name}-{count}", codec, count))
    if args.baselines:
        rows += [(f"{name}-{count}", name, count) for name, known in BASELINES.items() for count in known.paper]
    rows = list(dict.fromkeys(rows))
    names = [name for name, _, _ in rows]
    if not rows or len(set(names)) < len(names):
        raise DataError(f"--codecs needs codecs of different names, got {', '.join(names) or 'none'}")
    return rows


def command(codec: str, books: int | None, args: CompareCodecsArguments, result: Path) -> list[str]:
    """Command line of one codec's measurement."""
    words = [sys.executable, str(SCRIPT), "--codec", codec, "--audio", *args.audio, "--output", str(result)]
    words += ["--device", args.device, "--resume", "true", "--asr", args.asr]
    words += [] if books is None else ["--num_codebooks", str(books)]
    words += [] if args.limit is None else ["--limit", str(args.limit)]
    words += [] if args.transcripts is None else ["--transcripts", args.transcripts]
    words += ["--metrics", *args.metrics] if args.metrics else []
    return words + (["--checkpoints", *args.checkpoints] if args.checkpoints else [])


if __name__ == "__main__":
    run_main(main)
