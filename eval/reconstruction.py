"""What a codec keeps: UTMOS, PESQ, STOI, voicing, speaker, AudioBox, log-mel error, codebook use, on any recordings.

    python eval/reconstruction.py --codec runs/demo/codec --audio DIR [DIR …] --output runs/reconstruction.json --picture mel.png
    python eval/reconstruction.py --codec mimi --num_codebooks 8 --dataset openslr/librispeech_asr --dataset_config clean
    python eval/reconstruction.py --reconstructions DIR --audio DIR        (any other system: files of the same relative names)

Each folder (or text file listing files) is a group of the result. A metric whose package or model is not here stays null, with
the way to get it; --dry_run lists them. Beside the result lie the clips' figures (NAME.items.jsonl), from which --resume goes on.
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from alm.arguments import beside, option, parse_arguments, run_main
from alm.data.example import DataError


@dataclass
class ReconstructionArguments:
    codec: str | None = option(None, "folder, Hub id or name of a codec")
    num_codebooks: int | None = option(None, "codebooks to use of a codec that has several")
    codec_options: list[str] = field(
        default_factory=list,
        metadata={"help": "NAME=VALUE: options of the codec (revision, checkout, config, checkpoint)"},
    )
    reconstructions: str | None = option(
        None, "instead of a codec: folder of another system's files, paired by relative name"
    )
    allow_missing: bool = option(False, "originals without a file in --reconstructions are counted, and no error")
    audio: list[str] = field(
        default_factory=list, metadata={"help": "folders of recordings, or text files that list them"}
    )
    dataset: str | None = option(None, "data set of the Hub, or local folder of one, instead of --audio; streamed")
    dataset_config: str | None = option(None, "its configuration")
    dataset_split: str = option("test", "its split")
    dataset_column: str = option("audio", "its column of audio")
    metrics: list[str] = field(
        default_factory=list,
        metadata={
            "help": "metrics; default: all that are not stand-ins (vuv_f1 takes six times a clip's length on a CPU); 'all': those, too"
        },
    )
    require: list[str] = field(
        default_factory=list, metadata={"help": "metrics whose absence is an error ('all': each of them)"}
    )
    checkpoints: list[str] = field(
        default_factory=list, metadata={"help": "METRIC=PATH: a metric's model elsewhere than in its cache"}
    )
    transcripts: str | None = option(None, "CSV file (file_name,text) of what is said, for word error rates")
    asr: str = option("openai/whisper-large-v3", "recogniser: Hub id or folder (Transformers' form or CTranslate2's)")
    output: str = option("runs/reconstruction.json", "result file")
    system: str | None = option(None, "name of the system in the result")
    limit: int | None = option(
        None, "only every n-th file, so that about this many of a folder remain; of a data set the first"
    )
    every: int = option(1, "only every n-th file of each folder, from the first")
    originals: bool = option(True, "score the originals, too, by the metrics that listen to one waveform")
    length_sweep: list[float] = field(
        default_factory=list, metadata={"help": "seconds: also measure recordings joined to each of these lengths"}
    )
    sweep_seconds: float = option(600.0, "recordings that the sweep joins, in all, for each length")
    griffin_lim: bool = option(False, "Griffin-Lim instead of the vocoder (debugging)")
    picture: str | None = option(None, "PNG of mel spectrograms, original above reconstruction")
    picture_clips: int = option(4, "clips in the picture, spread over the groups")
    save_audio: str | None = option(None, "folder for the reconstructions (WAV)")
    device: str = option("cpu", "cpu, cuda, …")
    max_missing: float = option(0.1, "share of clips that may be missing or unreadable")
    resume: bool = option(False, "take over the rows of an interrupted run of the same system, metrics and code")
    dry_run: bool = option(False, "print the plan and stop")

    def __post_init__(self) -> None:
        if (self.codec is None) == (self.reconstructions is None):
            raise ValueError("give either --codec CODEC or --reconstructions FOLDER")
        if bool(self.audio) == (self.dataset is not None):
            raise ValueError("give either --audio FOLDER … or --dataset NAME")
        if self.length_sweep and (self.codec is None or not self.audio):
            raise ValueError("--length_sweep needs --codec and --audio")
        if self.save_audio and self.resume:
            raise ValueError("--save_audio writes while it measures; without --resume")
        if self.num_codebooks is not None and self.codec is None:
            raise ValueError("--num_codebooks needs --codec")
        for name in ("every", "limit", "picture_clips", "sweep_seconds", "num_codebooks"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"--{name} must be above 0, got {value}")
        for name, form in (("checkpoints", "METRIC=PATH"), ("codec_options", "NAME=VALUE")):
            if bad := [word for word in getattr(self, name) if "=" not in word]:
                raise ValueError(f"--{name} takes {form}, got {bad[0]}")


class Measured(NamedTuple):
    """Rows of the clips and of the length sweep, the clips to draw, and who measured what."""

    rows: list[Any]
    swept: list[Any]
    shown: list[Any]
    runner: Any
    labels: dict[str, str]
    no_words: str | None
    """Why there are no word error rates."""


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(ReconstructionArguments, argv, description=__doc__)
    from alm.scoring.sound.sources import folder_clips
    from alm.scoring.sound.zoo import choose

    choice = choose(args.metrics, args.require, dict(word.split("=", 1) for word in args.checkpoints))
    clips = folder_clips(args.audio, args.every, args.limit) if args.audio else None
    if args.dry_run:
        print(plan(args, clips, choice))
        return

    from alm.scoring.manifest import environment
    from alm.scoring.results import write_result
    from alm.scoring.sound.summary import build
    from alm.scoring.sound.table import render

    items = beside(args.output, ".items.jsonl")
    system, paired, lost = open_system(args, clips)
    done = score(args, choice, system, paired, items)
    problems = [*done.runner.problems.values(), *(f"{name}: no reconstruction" for name in lost)]
    for problem in problems:
        print(f"not measured: {problem}", file=sys.stderr)
    if args.resume:
        print(f"{done.runner.reused} rows taken over", file=sys.stderr)
    command = ["python", "eval/reconstruction.py", *(sys.argv[1:] if argv is None else argv)]
    result = build(
        args.system or args.codec or Path(args.reconstructions or "").name,
        done.rows,
        system.identity,
        choice,
        missing={"missing": len(done.runner.problems), "missing_reconstructions": len(lost)},
        swept=done.swept,
        manifest=system.identity | {"metrics": done.labels, "problems": problems, **environment(command)},
        items=items.name,
        words=done.no_words,
    )
    write_result(result, args.output)
    if args.picture:
        from alm.scoring.sound.picture import draw

        print(f"picture of {draw(done.shown, system, Path(args.picture))} clips: {args.picture}")
    print(render(result))
    print(f"\nresult: {args.output}; rows of the clips: {items}")


def score(args: ReconstructionArguments, choice: Any, system: Any, clips: Any, items: Path) -> Measured:
    """Measure all clips and the sweep; the rows are kept in `items` as they come."""
    from alm.scoring.item_log import ItemLog
    from alm.scoring.manifest import code_version, resume_key
    from alm.scoring.sound.rows import Runner, save, sweep
    from alm.scoring.speech.words import word_scorer

    words = word_scorer(args.transcripts, args.asr, args.device)
    scorer, why = (None, words) if isinstance(words, str) else (words, None)
    labels = {metric.name: found.label for metric, found in choice.metrics}
    if scorer is not None:
        labels["wer"] = scorer.label
    key = resume_key(system=system.identity, metrics=labels, originals=args.originals, code=code_version())
    metrics = [(metric, metric.load(found, args.device)) for metric, found in choice.metrics]
    keep = partial(save, Path(args.save_audio)) if args.save_audio else None
    with ItemLog(items, key, args.resume) as log:
        runner = Runner(system, metrics, log, originals=args.originals, keep=keep, words=scorer)
        rows, shown = measure(args, runner, clips)
        swept = sweep(runner, clips or [], args.length_sweep, args.sweep_seconds)
    return Measured(rows, swept, shown, runner, labels, why)


def plan(args: ReconstructionArguments, clips: Any, choice: Any) -> str:
    from alm.scoring.sound.sources import by_group

    of = {args.dataset: "rows"} if clips is None else {group: f"{n:,} files" for group, n in by_group(clips).items()}
    lines = [f"{count:>14} of {group}" for group, count in of.items()]
    lines += [f"{metric.name:<14} {found.label}" for metric, found in choice.metrics]
    return "\n".join([*lines, *(f"{name:<14} not available: {why}" for name, why in choice.unavailable.items())])


def open_system(args: ReconstructionArguments, clips: Any) -> tuple[Any, Any, list[str]]:
    """The system, the clips that it can reconstruct, and the ids of those that it lacks."""
    from alm.scoring.sound.sources import hub_clips, pair_stored
    from alm.scoring.sound.systems import CodecSystem, StoredSystem

    if args.codec is not None:
        from codec.zoo import load_codec

        options: dict[str, Any] = dict(word.split("=", 1) for word in args.codec_options)
        if args.num_codebooks is not None:
            options["num_codebooks"] = args.num_codebooks
        return CodecSystem(load_codec(args.codec, args.device, **options), args.codec, args.griffin_lim), clips, []
    if clips is None:  # pairing needs the names of all
        clips = list(hub_clips(*hub_arguments(args)))
    paths = pair_stored(clips, args.reconstructions or "")
    lost = [clip.id for clip in clips if clip.id not in paths]
    if len(lost) == len(clips) or (lost and not args.allow_missing):
        raise DataError(
            f"{args.reconstructions} lacks {len(lost)} of {len(clips)} reconstructions (first: {lost[0]}.*; of a single folder its "
            "name may be left out); --allow_missing counts them and measures the others"
        )
    return StoredSystem(paths, args.reconstructions or ""), [clip for clip in clips if clip.id in paths], lost


def hub_arguments(args: ReconstructionArguments) -> tuple[Any, ...]:
    return args.dataset, args.dataset_config, args.dataset_split, args.dataset_column, args.every, args.limit


def measure(args: ReconstructionArguments, runner: Any, clips: Any) -> tuple[list[Any], list[Any]]:
    """Rows of the clips, and the clips to draw."""
    from tqdm import tqdm

    from alm.scoring.sound.picture import spread
    from alm.scoring.sound.sources import hub_clips

    if clips is not None:
        shown = spread(clips, args.picture_clips)
        return runner.run(tqdm(clips, unit="clip"), len(clips), args.max_missing), shown
    shown = []

    def watched() -> Any:
        for clip in hub_clips(*hub_arguments(args)):
            if len(shown) < args.picture_clips:
                shown.append(clip)
            yield clip

    return runner.run(tqdm(watched(), unit="clip"), None, args.max_missing), shown


if __name__ == "__main__":
    run_main(main)
