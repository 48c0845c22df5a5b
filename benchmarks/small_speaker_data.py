"""Speech for the small language model of docs/results.md: recordings of one speaker, and espeak-ng reading sentences in one voice.

    python benchmarks/small_speaker_data.py --speech DIR --corpus runs/demo/corpus --output runs/small/spoken

DIR holds short recordings and metadata.csv (file_name,text); espeak-ng reads their texts and every caption of the demo corpus. Written
are `recorded/` and `read/`, each with metadata.csv (file_name,transcript) as the data set `folder` reads it, and `held_out_recorded.csv`
and `held_out_read.csv` (file_name,text): sentences, not clips, are held out, the recordings as benchmarks/small_codec_data.py does.
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

from alm.arguments import parse_arguments, run_main


@dataclass
class SpokenArguments:
    speech: str = field(metadata={"help": "folder with metadata.csv (file_name,text)"})
    corpus: str = field(metadata={"help": "folder of the demo corpus"})
    output: str = field(metadata={"help": "folder to write"})
    voice: str = field(default="en-us+f3", metadata={"help": "espeak-ng's voice"})
    rate: float = field(default=140, metadata={"help": "words a minute of that voice"})
    hold_out: int = field(default=6, metadata={"help": "every so manieth recording is held out"})
    hold_out_read: int = field(default=30, metadata={"help": "every so manieth sentence that is read is held out"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(SpokenArguments, argv, description=__doc__)
    speech, output = Path(args.speech).resolve(), Path(args.output)
    recorded = sorted(rows_of(speech / "metadata.csv"), key=lambda row: row["file_name"])
    held_out = recorded[:: args.hold_out]
    kept = [row for row in recorded if row not in held_out]
    write(output / "held_out_recorded.csv", [(speech / row["file_name"], row["text"]) for row in held_out], "text")
    (output / "recorded").mkdir(exist_ok=True)
    for row in kept:
        (output / "recorded" / row["file_name"]).symlink_to(speech / row["file_name"])
    write(output / "recorded/metadata.csv", [(row["file_name"], row["text"]) for row in kept], "transcript")

    captions = sorted({row["caption"] for row in rows_of(Path(args.corpus) / "captions.csv")})
    new = captions[:: args.hold_out_read]
    learned = [text for text in captions if text not in set(new)] + [row["text"] for row in kept]
    for name, texts in (("read", learned), ("held_out_read", new)):
        spoken = [(f"{number:05d}.flac", text) for number, text in enumerate(texts)]
        (output / name).mkdir(exist_ok=True)
        seconds = sum(read(text, output / name / file, args) for file, text in spoken)
        print(f"{name}: {len(spoken)} sentences, {seconds / 60:.1f} minutes")
        if name == "read":
            write(output / name / "metadata.csv", spoken, "transcript")
        else:
            write(output / f"{name}.csv", [((output / name / file).resolve(), text) for file, text in spoken], "text")
    print(f"recorded: {len(kept)}, and {len(held_out)} held out")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def read(text: str, path: Path, args: SpokenArguments) -> float:
    """Let espeak-ng read `text` into `path`; returns its seconds."""
    from alm.data.demo.effects import SAMPLING_RATE
    from alm.data.demo.speech import Speaker

    with Speaker() as speaker:
        wave = speaker.say(text, args.voice, args.rate)
    soundfile.write(path, wave, SAMPLING_RATE)
    return len(wave) / SAMPLING_RATE


def write(path: Path, rows: list[tuple[object, str]], column: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as lines:
        table = csv.writer(lines)
        table.writerow(("file_name", column))
        table.writerows(rows)


if __name__ == "__main__":
    run_main(main)
