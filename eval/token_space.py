"""The space of tokens (the paper's Fig. 10): mean token embedding per clip, or audio beside captions, in two dimensions.

    python eval/token_space.py --codec runs/demo/codec --audio SPEECH MUSIC SOUNDS --output runs/token_space.png
    python eval/token_space.py --model runs/demo/model --audio …                    (embedding rows of a language model)
    python eval/token_space.py --pretraining runs/demo/codec/pretraining --captions captions.csv --label_column kind

Points are coloured by folder; captioned clips by a column, or by the folder of their file. Beside the picture lie the coordinates
(NAME.json). --method pca needs no extra package.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alm.arguments import option, parse_arguments, run_main
from alm.data.example import DataError


@dataclass
class SpaceArguments:
    codec: str | None = option(None, "codec whose codebook vectors are averaged")
    num_codebooks: int | None = option(None, "codebooks to use of a codec that has several")
    codec_options: list[str] = field(
        default_factory=list,
        metadata={"help": "NAME=VALUE: options of the codec (revision, checkout, config, checkpoint)"},
    )
    model: str | None = option(None, "checkpoint of a language model whose audio rows are averaged")
    pretraining: str | None = option(
        None, "stage-1 checkpoint (folder `pretraining`) whose audio and captions are placed"
    )
    audio: list[str] = field(default_factory=list, metadata={"help": "folders of recordings; each is a colour"})
    captions: str | None = option(
        None, "captioned clips for --pretraining: CSV with file_name and caption, folder, data set"
    )
    label_column: str | None = option(None, "column of the CSV of --captions that colours")
    limit: int | None = option(200, "about this many clips of each folder, or of the captions")
    method: str = option("umap", "umap or pca")
    neighbours: int = option(15, "UMAP's n_neighbors")
    seed: int = option(0, "of UMAP")
    output: str = option("runs/token_space.png", "picture; the coordinates go beside it as JSON")
    device: str = option("cpu", "cpu, cuda, …")
    max_missing: float = option(0.1, "share of clips that may be missing or unreadable")
    dry_run: bool = option(False, "print the plan and stop")

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.codec, self.model, self.pretraining)) != 1:
            raise ValueError("give one of --codec, --model and --pretraining")
        if self.pretraining is not None and (self.captions is None or self.audio):
            raise ValueError("--pretraining needs --captions, and no --audio")
        if bad := [word for word in self.codec_options if "=" not in word]:
            raise ValueError(f"--codec_options takes NAME=VALUE, got {bad[0]}")
        if self.pretraining is None and not self.audio:
            raise ValueError("--codec and --model need --audio")


@dataclass
class Point:
    """One clip's or caption's place: id, colour, kind (`audio` or `text`) and vector `(D,)`."""

    id: str
    label: str
    kind: str
    vector: Any


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(SpaceArguments, argv, description=__doc__)
    clips = captioned(args) if args.pretraining else recordings(args)
    if args.dry_run:
        for label in dict.fromkeys(label for _, label, _ in clips):
            print(f"{sum(other == label for _, other, _ in clips):6,} clips of {label}")
        return

    import numpy as np

    from alm.scoring.manifest import environment
    from alm.scoring.results import write_text_atomically
    from alm.scoring.sound.projection import centre_distances, project

    points, problems, identity = place(args, clips)
    coordinates = project(np.stack([point.vector for point in points]), args.method, args.seed, args.neighbours)
    labels, kinds = [point.label for point in points], [point.kind for point in points]
    record = {
        "method": args.method,
        "seed": args.seed,
        "points": [
            {"id": point.id, "label": point.label, "kind": point.kind, "x": float(x), "y": float(y)}
            for point, (x, y) in zip(points, coordinates, strict=True)
        ],
        "centre_distances": centre_distances(coordinates, labels, kinds, "audio", "text"),
        "problems": problems,
        "manifest": identity
        | environment(["python", "eval/token_space.py", *(sys.argv[1:] if argv is None else argv)]),
    }
    output = Path(args.output)
    table = output.with_suffix(".json")
    write_text_atomically(table, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    draw(coordinates, labels, kinds, args.method, output)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    for label, distance in record["centre_distances"].items():
        print(f"{label}: the centres of audio and captions are {distance:.2f} apart")
    print(f"{len(points)} points: {output}; coordinates: {table}")


Item = tuple[Any, str, str]  # audio (file or bytes), label, and caption (empty for recordings)


def recordings(args: SpaceArguments) -> list[Item]:
    from alm.scoring.sound.sources import folder_clips

    return [(clip.source, clip.group, "") for clip in folder_clips(args.audio, limit=args.limit)]


def captioned(args: SpaceArguments) -> list[Item]:
    import csv

    from codec.data import read_clips

    clips = read_clips(args.captions or "")
    labels: list[str] | None = None
    if args.label_column is not None:
        source = Path(args.captions or "")
        with (source / "metadata.csv" if source.is_dir() else source).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows or args.label_column not in rows[0]:
            raise DataError(
                f"{source} has no column {args.label_column!r}, it has {', '.join(rows[0] if rows else ())}"
            )
        labels = [row[args.label_column] for row in rows]
    step = max(1, -(-len(clips) // args.limit)) if args.limit else 1
    chosen = [(clips[i], i) for i in range(0, len(clips), step)]
    return [
        (
            clip.audio,
            labels[i] if labels else clip.audio.parent.name if isinstance(clip.audio, Path) else "",
            clip.caption,
        )
        for clip, i in chosen
    ]


def place(args: SpaceArguments, clips: Sequence[Item]) -> tuple[list[Point], list[str], dict[str, Any]]:
    """Vectors of all clips that can be read, what is wrong with the others, and what made the vectors."""
    from tqdm import tqdm

    from alm.scoring.sound.rows import require_readable
    from codec.audio import AudioError, read_audio

    embed, rate, identity = embedder(args)
    points: list[Point] = []
    problems: dict[str, str] = {}
    for number, (source, label, caption) in enumerate(tqdm(clips, unit="clip")):
        name = str(source) if isinstance(source, Path) else f"row {number}"
        try:
            waveform = read_audio(source, rate, name)
        except AudioError as error:
            problems[name] = str(error)
            continue
        points += [Point(name, label, kind, vector) for kind, vector in embed(waveform, caption).items()]
    require_readable(problems, len(clips), args.max_missing)
    return points, list(problems.values()), identity


def embedder(args: SpaceArguments) -> tuple[Callable[[Any, str], dict[str, Any]], int, dict[str, Any]]:
    """A function from waveform and caption to vectors by kind, the rate that it wants, and what it is."""
    if args.pretraining is not None:
        return stage_one(args.pretraining, args.device)
    import numpy as np

    if args.model is not None:
        from alm.checkpoint import load_checkpoint

        model, processor = load_checkpoint(args.model, device=args.device)
        codec, vocabulary = processor.codec, processor.vocabulary
        if codec is None:
            raise DataError(f"{args.model} names no codec, so its audio rows cannot be reached from recordings")
        rows = model.get_input_embeddings().weight.detach().float().cpu().numpy()
        identity = {"model": args.model, "codec": codec.fingerprint, "vectors": "embedding rows"}

        def ids(codes: Any) -> Any:
            return vocabulary.codes_to_ids(codes)

    else:
        from codec.zoo import load_codec

        options: dict[str, Any] = dict(word.split("=", 1) for word in args.codec_options)
        if args.num_codebooks is not None:
            options["num_codebooks"] = args.num_codebooks
        codec = load_codec(args.codec or "", args.device, **options)
        rows = codec.codebook_vectors()
        if rows is None:
            raise DataError(
                f"{args.codec} has no codebook vectors; place its tokens by a language model's rows with --model"
            )
        identity = {"codec": codec.fingerprint, "vectors": "codebook"}
        offsets = np.arange(codec.num_codebooks)[:, None] * codec.codebook_size

        def ids(codes: Any) -> Any:
            return (codes + offsets).ravel()

    return lambda waveform, _: {"audio": rows[ids(codec.encode([waveform])[0])].mean(0)}, codec.sampling_rate, identity


def stage_one(folder: str, device: str) -> Any:
    """Audio's [CLS] and the caption, both in the space of eq. 10."""
    import torch
    from torch.nn.functional import normalize

    from codec import EntangleCodecForPreTraining
    from codec.mel import log_mel
    from codec.text import CAPTION_TOKENIZER_FILE, CaptionTokenizer

    if not (Path(folder) / CAPTION_TOKENIZER_FILE).is_file():
        raise DataError(
            f"{folder} holds no stage-1 checkpoint ({CAPTION_TOKENIZER_FILE}); give the folder `pretraining`"
        )
    model = EntangleCodecForPreTraining.from_pretrained(folder).eval().to(device)
    tokenizer = CaptionTokenizer.load(Path(folder), model.config.text_max_length)

    @torch.inference_mode()
    def embed(waveform: Any, caption: str) -> dict[str, Any]:
        mel = log_mel(torch.from_numpy(waveform), model.config.mel_spec)[None].to(device)
        captions = tokenizer([caption])
        audio = model.audio_projection(model.codec.encoder(mel).cls)
        text = model.text_tower(captions.input_ids.to(device), captions.lengths.to(device))
        return {kind: normalize(x.float(), dim=-1)[0].cpu().numpy() for kind, x in (("audio", audio), ("text", text))}

    return embed, model.config.sampling_rate, {"pretraining": folder, "vectors": "eq. 10's space"}


def draw(coordinates: Any, labels: list[str], kinds: list[str], method: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 6), layout="constrained")
    for number, label in enumerate(dict.fromkeys(labels)):
        for kind, marker in (("audio", "o"), ("text", "^")):
            chosen = np.array([own == (label, kind) for own in zip(labels, kinds, strict=True)])
            if chosen.any():
                name = f"{label} {kind if len(set(kinds)) > 1 else ''}".strip()
                colour = f"C{number % 10}"
                axis.scatter(*coordinates[chosen].T, s=14, marker=marker, color=colour, alpha=0.7, label=name)
    axis.set_xlabel(f"{method.upper()} 1")
    axis.set_ylabel(f"{method.upper()} 2")
    axis.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    run_main(main)
