"""The two pictures of the small language model in docs/results.md: curves of its trainings, and what it made beside what was recorded.

    python benchmarks/small_pictures.py --runs runs/small/pretrained runs/small/sft … --rows 'original=DIR' 'codec=DIR' 'model=DIR' \
        --names 00000 00001 --output docs/images

DIR holds <name>.wav; a column is a name, a row a folder. All sounds share one colour scale.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from alm.arguments import parse_arguments, run_main


@dataclass
class PictureArguments:
    output: str = field(metadata={"help": "folder of curves.png and samples.png"})
    runs: list[str] = field(
        default_factory=list, metadata={"help": "folders of trainings, by their training_log.jsonl"}
    )
    rows: list[str] = field(default_factory=list, metadata={"help": "LABEL=DIR"})
    names: list[str] = field(default_factory=list, metadata={"help": "names of the sounds"})
    titles: list[str] = field(default_factory=list, metadata={"help": "words over the columns"})
    rate: int = field(default=24_000, metadata={"help": "samples a second"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(PictureArguments, argv, description=__doc__)
    import matplotlib

    matplotlib.use("Agg")
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    if args.runs:
        curves([Path(run) for run in args.runs], output / "small_curves.png")
    if args.rows:
        samples(args, output / "small_samples.png")


def curves(runs: list[Path], path: Path) -> None:
    """Loss by step, on a logarithmic scale."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    for run in runs:
        lines = map(json.loads, (run / "training_log.jsonl").read_text(encoding="utf-8").splitlines())
        points = [(line["step"], line["loss"]) for line in lines if "loss" in line]
        axes.plot(*zip(*points, strict=True), label=run.name, linewidth=1)
    axes.set(xlabel="step", ylabel="loss, nats", yscale="log")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def samples(args: PictureArguments, path: Path) -> None:
    """Log-mel spectrograms, a row a folder and a column a name."""
    import matplotlib.pyplot as plt
    import torch

    from codec.audio import read_audio
    from codec.mel import MelSpec, log_mel

    rows = [row.split("=", 1) for row in args.rows]
    figure, grid = plt.subplots(
        len(rows),
        len(args.names),
        figsize=(3.2 * len(args.names), 1.3 * len(rows)),
        squeeze=False,
        layout="constrained",
    )
    for line, (label, folder) in zip(grid, rows, strict=True):
        for axes, name in zip(line, args.names, strict=True):
            wave = torch.from_numpy(read_audio(Path(folder) / f"{name}.wav", args.rate))
            mel = log_mel(wave, MelSpec(sampling_rate=args.rate))
            axes.imshow(mel.T, origin="lower", aspect="auto", cmap="magma", vmin=-9, vmax=2)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(label, fontsize=8)
    for axes, title in zip(grid[0], args.titles or args.names, strict=True):
        axes.set_title(title, fontsize=8)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    run_main(main)
