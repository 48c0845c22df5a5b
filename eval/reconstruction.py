"""What a codec keeps: log-mel error, STOI, codebook use and perplexity on folders of recordings.

    python eval/reconstruction.py --codec runs/demo/codec --audio DIR [DIR …] --output runs/reconstruction.json --picture mel.png

Each folder (or text file listing files) is a group of the result. --griffin_lim listens to the decoder's mel without the vocoder.
"""

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alm.arguments import parse_arguments, run_main
from alm.data.example import DataError
from alm.scoring.manifest import environment
from alm.scoring.results import Result, render_table, write_result
from alm.scoring.statistics import Estimate, estimate


@dataclass
class ReconstructionArguments:
    codec: str = field(metadata={"help": "folder or Hub id of the codec"})
    audio: list[str] = field(metadata={"help": "folders of recordings, or text files that list them"})
    output: str = field(default="runs/reconstruction.json", metadata={"help": "result file"})
    limit: int | None = field(
        default=None, metadata={"help": "only every n-th file, so that about this many of a folder remain"}
    )
    every: int = field(default=1, metadata={"help": "only every n-th file of each folder, from the first"})
    griffin_lim: bool = field(default=False, metadata={"help": "Griffin-Lim instead of the vocoder (debugging)"})
    picture: str | None = field(
        default=None, metadata={"help": "PNG of mel spectrograms, original above reconstruction"}
    )
    save_audio: str | None = field(default=None, metadata={"help": "folder for the reconstructions (WAV)"})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, …"})
    max_missing: float = field(default=0.1, metadata={"help": "share of unreadable files that stops the run"})
    dry_run: bool = field(default=False, metadata={"help": "print the plan and stop"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(ReconstructionArguments, argv, description=__doc__)
    folders = {str(source): select(source, args) for source in args.audio}
    if args.dry_run:
        for name, paths in folders.items():
            print(f"{len(paths):6,} files of {name}")
        return

    from tqdm import tqdm

    from codec.audio import AudioError, read_audio, write_audio
    from codec.codebook import codebook_use
    from codec.zoo import load_codec

    codec = load_codec(args.codec, args.device)
    rows: dict[str, list[dict[str, Any]]] = {}
    unreadable: list[str] = []
    for name, paths in folders.items():
        rows[name] = []
        for path in tqdm(paths, desc=Path(name).name, unit="clip"):
            try:
                waveform = read_audio(path, codec.sampling_rate)
            except AudioError as error:
                unreadable.append(str(error))
                continue
            rows[name].append(measure(codec, waveform, args.griffin_lim) | {"path": str(path)})
            if args.save_audio:
                target = Path(args.save_audio) / Path(name).name / f"{path.stem}.wav"
                target.parent.mkdir(parents=True, exist_ok=True)
                write_audio(target, rows[name][-1]["made"], codec.sampling_rate)
    total = sum(len(paths) for paths in folders.values())
    if len(unreadable) > args.max_missing * total:
        raise DataError(f"{len(unreadable)} of {total} files cannot be read (--max_missing): {unreadable[0]}")

    import numpy as np
    import torch

    def scores(chosen: list[dict[str, Any]]) -> dict[str, Estimate]:
        use = codebook_use(
            torch.from_numpy(np.concatenate([row["codes"].ravel() for row in chosen])), codec.codebook_size
        )
        stoi = [row["stoi"] for row in chosen if not math.isnan(row["stoi"])]
        return {
            "log_mel_l1": estimate([row["log_mel_l1"] for row in chosen]),
            **({"stoi": estimate(stoi)} if stoi else {}),
            "codebook_use": Estimate(use.used, use.used, use.used, use.n),
            "perplexity_share": Estimate(
                use.perplexity / codec.codebook_size, *[use.perplexity / codec.codebook_size] * 2, use.n
            ),
        }

    everything = [row for chosen in rows.values() for row in chosen]
    result = Result(
        benchmark="codec reconstruction",
        system=args.codec,
        scores=scores(everything),
        groups={"folder": {Path(name).name: scores(chosen) for name, chosen in rows.items()}},
        counts={
            "items": total,
            "missing": len(unreadable),
            "stoi_undefined": sum(math.isnan(row["stoi"]) for row in everything),
        },
        manifest={
            "codec": codec.fingerprint,
            "codebook_size": codec.codebook_size,
            "waveform": "griffin_lim" if args.griffin_lim else "vocoder",
            **environment(["python", "eval/reconstruction.py", *(sys.argv[1:] if argv is None else argv)]),
        },
    )
    write_result(result, args.output)
    if args.picture:
        draw([chosen[len(chosen) // 2] for chosen in rows.values()], codec, Path(args.picture))
        print(f"picture: {args.picture}")
    print(render_table(result))
    print(f"\nresult: {args.output}")


def select(source: str, args: ReconstructionArguments) -> list[Path]:
    from alm.data.audio_files import find_audio  # brings torch

    paths = [Path(path) for path in find_audio([source]).paths][:: args.every]
    if args.limit is not None:
        paths = paths[:: max(1, math.ceil(len(paths) / args.limit))]
    if not paths:
        raise DataError(f"{source}: no audio files")
    return paths


def measure(codec: Any, waveform: Any, griffin_lim: bool) -> dict[str, Any]:
    """Codes, reconstruction and figures of one clip."""
    import torch

    from alm.scoring.reconstruction import log_mel_error, stoi

    codes = codec.encode([waveform])[0]
    if griffin_lim:
        with torch.inference_mode():
            values = codec.model.decode(torch.from_numpy(codes)[None], vocode="griffin_lim").audio_values
        made = values[0, 0].numpy()
    else:
        made = codec.decode([codes])[0]
    spec = codec.model.config.mel_spec
    return {
        "codes": codes,
        "waveform": waveform,
        "made": made,
        "log_mel_l1": log_mel_error(waveform, made, spec),
        "stoi": stoi(waveform, made, codec.sampling_rate),
    }


def draw(rows: list[dict[str, Any]], codec: Any, path: Path) -> None:
    """Mel spectrograms of one clip a folder: original above, reconstruction below."""
    import matplotlib

    matplotlib.use("Agg")
    import torch
    from matplotlib import pyplot

    from codec.mel import log_mel

    spec = codec.model.config.mel_spec
    figure, axes = pyplot.subplots(2, len(rows), figsize=(6 * len(rows), 5), squeeze=False, layout="constrained")
    for column, row in enumerate(rows):
        for line, (name, signal) in enumerate((("original", row["waveform"]), ("reconstruction", row["made"]))):
            mel = log_mel(torch.from_numpy(signal[: len(row["waveform"])].copy()), spec)
            seconds = len(mel) / spec.frame_rate
            axes[line, column].imshow(
                mel.T.numpy(),
                origin="lower",
                aspect="auto",
                vmin=-2.5,
                vmax=2.5,
                extent=(0, seconds, 0, spec.num_mel_bins),
            )
            axes[line, column].set_title(f"{name}: {Path(row['path']).name}", fontsize=9)
            axes[line, column].set_ylabel("mel bin")
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    run_main(main)
