"""Sounds made from the captions of AudioCaps or Clotho: CLAP score, Fréchet distance, KL divergence, AudioBox, stop rate.

    python eval/text_to_audio.py --data audiocaps/test.csv --recordings audiocaps/test --model CHECKPOINT --output runs/audiocaps.json
    python eval/text_to_audio.py --data clotho_captions_evaluation.csv --captions all --audio DIR     (any system's files, DIR/<id>.wav)

--data is AudioCaps' or Clotho's CSV, AudioLDM's or Tango's list, or any rows with id and caption (alm/data/caption_lists.py); the list
is named in the result, and figures on different lists are not comparable. Beside the system's figures stand those of the recordings,
of the sounds with other captions, of noise and of silence. What cannot be had here is null with the way to get it. The model's sounds
lie in NAME.audio/, told by NAME.outputs.jsonl, what was heard in each sound in NAME.sounds.jsonl, the figures of each caption in
NAME.items.jsonl: --resume goes on from any of them. FAD by VGGish, FD by PANNs and KL by PaSST have no maintained package to
build on: run audioldm_eval or stable-audio-metrics on NAME.audio/ and the recordings, which it pairs by file name.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alm.arguments import option, parse_arguments, require_output, run_main
from alm.data import caption_lists
from alm.data.example import DataError
from alm.scoring.processes import launched
from alm.scoring.synthesis_run import SynthesisArguments, generate


@dataclass(kw_only=True)
class TextToAudioArguments(SynthesisArguments):
    data: str = field(metadata={"help": "the list of captions"})
    captions: str = option("first", "first: of each clip; all: each caption has a sound of its own")
    recordings: str | None = option(
        None,
        "folder of the data set's own recordings; default: the folder of the list's name beside it, where there is one",
    )
    clap: str = option("laion/clap-htsat-unfused", "CLAP: folder or Hub id; scores by another are not comparable")
    classifier: str = option(
        "MIT/ast-finetuned-audioset-10-10-0.4593", "classifier of KL divergence and Fréchet distance: folder or Hub id"
    )
    metrics: list[str] = field(
        default_factory=lambda: ["audiobox"],
        metadata={"help": "metrics of single sounds; none: only those of CLAP and the classifier"},
    )
    require: list[str] = field(
        default_factory=list, metadata={"help": "clap, classifier or metrics whose absence is an error"}
    )
    controls: bool = option(True, "score recordings, other captions, noise and silence, too (three times the work)")
    max_missing: float = option(
        0.0, "share of sounds that may be missing or unreadable (they are scored as silence) before the run stops"
    )
    output: str = option("runs/text_to_audio.json", "result file")
    guidance_scale: float = option(1.0, "classifier-free guidance away from the sound of no caption; 1: none")
    max_seconds: float = option(10.0, "longest sound; one that reaches it was not ended by the model")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_output(self.output, self.data)
        if (self.model is None) == (self.audio is None):
            raise ValueError("give either --model CHECKPOINT or --audio FOLDER")
        if self.captions not in ("first", "all"):
            raise ValueError(f"--captions is first or all, got {self.captions!r}")
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"--max_missing is a share from 0 to 1, got {self.max_missing}")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(TextToAudioArguments, argv, description=__doc__)
    data = caption_lists.read(args.data, args.captions, args.limit)

    from alm.scoring.text_to_audio.equipment import Ears, equip

    folder, recordings = find_recordings(args, data)
    none = None if recordings else f"needs the recordings, and {folder} holds none: --recordings FOLDER"
    metrics = [] if args.metrics == ["none"] else args.metrics
    equipment = equip(args.clap, args.classifier, metrics, args.require, args.paths, none)
    processes = launched()
    if args.dry_run:
        if processes.is_main:
            print(plan(args, data, recordings, equipment))
        return

    from alm.scoring.manifest import code_version, environment, resume_key
    from alm.scoring.results import write_lines_atomically, write_result
    from alm.scoring.sound.table import render
    from alm.scoring.text_to_audio.hearing import Listener
    from alm.scoring.text_to_audio.scores import hear, score
    from alm.scoring.text_to_audio.summary import build

    takes, source = make(args, data.items) if args.model else stored(args, data)
    key = resume_key(**equipment.labels, code=code_version())
    with processes.open_log(args.beside(".sounds.jsonl"), key, args.resume) as log:
        listener = Listener(Ears(equipment, processes.device(args.device)), log)
        hear(data.items, takes, recordings, listener, args.controls, processes)
        if not processes.is_main:
            return
        scored = score(data.items, takes, recordings, listener, args.controls, args.max_missing)
    for name, why in (scored.missing | scored.lost).items():
        print(f"not there: {name}: {why}", file=sys.stderr)
    write_lines_atomically(args.beside(".items.jsonl"), scored.rows)
    manifest = {
        "data": Path(args.data).name,
        "data_sha256": data.sha256,
        "list": data.name,
        "limit": args.limit,
        **source,
        "metrics": equipment.labels,
        "heard": "by CLAP and the classifier the middle ten seconds of each sound, by metrics of single sounds the whole; soxr HQ",
        **environment(["python", "eval/text_to_audio.py", *(sys.argv[1:] if argv is None else argv)]),
    }
    system = args.system or Path(args.model or args.audio or "").name
    result = build(data.name, system, scored, equipment, manifest, args.beside(".items.jsonl").name)
    write_result(result, args.output)
    print(render(result))
    print(f"\nresult: {args.output}; figures of the captions: {args.beside('.items.jsonl')}")


def find_recordings(args: TextToAudioArguments, data: Any) -> tuple[Path, dict[str, Path]]:
    """The folder looked into, and the recordings by clip."""
    folder = Path(args.recordings) if args.recordings else Path(args.data).with_suffix("")
    found = data.recordings(folder)
    if args.recordings and not found:
        raise DataError(
            f"--recordings {folder} holds no recording of {args.data}, for example none of {data.items[0].clip}"
        )
    return folder, found


def plan(args: TextToAudioArguments, data: Any, recordings: Any, equipment: Any) -> str:
    lines = [
        f"{len(data.items):,} captions of {args.data} ({data.name}), {len(recordings):,} recordings of their clips"
    ]
    if args.model:
        lines.append(
            f"model {args.model} on {args.device}, up to {args.max_seconds:g} s each, to {args.beside('.audio')}"
        )
    else:
        lines.append(f"{len(stored(args, data)[0]):,} sounds in {args.audio}")
    lines += [f"{name:<18} {label}" for name, label in equipment.labels.items() if label]
    return "\n".join([*lines, *(f"{name:<18} not available: {why}" for name, why in equipment.unavailable.items())])


def stored(args: TextToAudioArguments, data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sounds of `--audio` by caption, and what the manifest says of them."""
    from alm.scoring.text_to_audio.scores import Take

    folder = Path(args.audio or "")
    if not folder.is_dir():
        raise DataError(f"--audio {folder}: no such folder")
    found = data.sounds(folder)
    if not found:
        raise DataError(f"--audio {folder} holds no sound of {args.data}: {data.items[0].id}.wav is the first expected")
    return {name: Take(path) for name, path in found.items()}, {"audio": folder.name}


def make(args: TextToAudioArguments, items: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sounds of `--model`, likewise."""
    from alm.prompts import SOUND_REQUEST, sound_messages
    from alm.scoring.synthesis import Request, own_seed
    from alm.scoring.text_to_audio.scores import Take

    asked = [Request(item.id, sound_messages(item.caption), own_seed(args.seed, item.id)) for item in items]
    rows, folder, source = generate(args, asked, repr(SOUND_REQUEST), sound_messages(""), args.guidance_scale)
    return {name: Take(folder / f"{name}.wav", row["stopped"]) for name, row in rows.items()}, source


if __name__ == "__main__":
    run_main(main)
