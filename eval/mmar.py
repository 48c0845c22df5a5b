"""Accuracy on MMAR (or any file of its format): a model's, or that of any system's stored answers.

    python eval/mmar.py --model runs/demo/model --data runs/demo/corpus/mmar/MMAR-meta.jsonl --output runs/demo/mmar.json
    python eval/mmar.py --predictions answers.jsonl --data MMAR-meta.jsonl --system somebody --output runs/somebody.json
    accelerate launch --multi_gpu --num_processes 8 eval/mmar.py --device cuda …   (the same files; all scripts with --model)

Printed and written beside each other: `official` (greedy answer, the benchmark's own rule, over all rows), `option` (which choice
the answer names, strictly parsed), `loglikelihood` (the likeliest choice, end of turn included; `loglikelihood_mean` per token),
`letter` (the likeliest letter, asked with lettered choices), and what the same questions earn without listening: chance, the best
constant position, the longest choice, the same model without the audio and with another question's, each with the paired
difference. `--permutations cyclic` asks every rotation of the choices, too.
Unanswered questions and clips that cannot be read count as wrong and are counted apart. A run that was interrupted goes on with
--resume and gives the same file.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from alm.arguments import option, parse_arguments, run_main
from alm.data import mmar
from alm.data.choice_rows import find_audio
from alm.data.example import DataError
from alm.scoring.choice_run import Benchmark, ChoiceArguments, run
from alm.scoring.multiple_choice import ChoiceRule


@dataclass
class MmarArguments(ChoiceArguments):
    data: str | None = option(None, "MMAR-meta.json or .jsonl; without it, the Hub's copy if it is in the local cache")
    output: str = option(
        "runs/mmar.json", "result file; the rows of the items are written beside it as NAME.items.jsonl"
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(MmarArguments, argv, description=__doc__)
    path = metadata_path(args.data)
    data = mmar.read(path)
    items = data.items[: args.limit]
    folder = Path(args.audio) if args.audio else path.parent
    paths = {item.id: find_audio(item.audio_path, folder) for item in items}
    told = {"data": path.name, "data_sha256": data.sha256}
    run(
        Benchmark("MMAR", items, paths, ChoiceRule(), told),
        args,
        ["python", "eval/mmar.py", *(sys.argv[1:] if argv is None else argv)],
    )


def metadata_path(data: str | None) -> Path:
    """`--data`, or the Hub's file where it has been downloaded before."""
    if data is not None:
        return Path(data)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(mmar.HUB_ID, mmar.HUB_FILE, repo_type="dataset")
    if isinstance(cached, str):
        return Path(cached)
    raise DataError(
        f"no --data given, and {mmar.HUB_ID} is not in the local Hub cache. To get it (3 GB with the audio): hf download "
        f"{mmar.HUB_ID} --repo-type dataset --local-dir data/mmar && tar -xzf data/mmar/{mmar.HUB_AUDIO} -C data/mmar, "
        f"then --data data/mmar/{mmar.HUB_FILE}"
    )


if __name__ == "__main__":
    run_main(main)
