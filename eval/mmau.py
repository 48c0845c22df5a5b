"""Accuracy on MMAU, test-mini or any file of its format; for the full test, whose answers are withheld, the submission file.

    python eval/mmau.py --model runs/demo/model --data mmau-test-mini.json --audio test-mini-audios --output runs/mmau_mini.json
    python eval/mmau.py --model runs/demo/model --data mmau-test.json --audio test-audios --output runs/mmau_test.json
    python eval/mmau.py --predictions answers.json --data mmau-test-mini.json --system somebody --output runs/somebody.json

--data takes the authors' JSON list, JSON lines, and Parquet files or folders of the Hub's copies; the audio in Parquet is written to
--audio once. Scores and controls are those of eval/mmar.py, in tables by modality (the file's task), category, sub-category and
difficulty. The rule is the authors' `string_match` over all rows; their program leaves unanswered rows out instead.
Without answers in the file nothing can be scored: the predictions are written as NAME.submission.json, the authors' rows with the
answers under `model_output` (what their program reads) and `model_prediction` (what their README says), for their evaluation page.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from alm.arguments import beside, option, parse_arguments, run_main
from alm.data import mmau
from alm.data.choice_rows import find_audio
from alm.data.example import DataError
from alm.scoring.choice_run import Benchmark, ChoiceArguments, run
from alm.scoring.multiple_choice import ChoiceRule
from alm.scoring.processes import launched
from alm.scoring.submission import submit


@dataclass
class MmauArguments(ChoiceArguments):
    data: str | None = option(None, "mmau-test-mini.json, mmau-test.json, or a copy as JSON lines or Parquet")
    audio: str | None = option(
        None, "folder of the clips; without it, that of --data, and NAME.audio beside the result for Parquet"
    )
    output: str = option(
        "runs/mmau.json", "result file; the rows of the items are written beside it as NAME.items.jsonl"
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(MmauArguments, argv, description=__doc__)
    if args.data is None:
        raise DataError(
            "no --data given. The file of test-mini with its answers is mmau-test-mini.json of github.com/Sakshi113/MMAU; with the "
            f"audio: hf download {mmau.HUB_ID} --repo-type dataset --local-dir data/mmau, then --data data/mmau"
        )
    path = Path(args.data)
    parquet = path.is_dir() or path.suffix == ".parquet"
    folder = Path(args.audio) if args.audio else beside(args.output, ".audio") if parquet else path.parent
    with launched().main_first():  # it may write the audio
        data = mmau.read(path, folder)
    items = data.items[: args.limit]
    paths = {item.id: find_audio(item.audio_id, folder) for item in items}
    told = {"data": path.name, "data_sha256": data.sha256}
    benchmark = Benchmark("MMAU", items, paths, ChoiceRule(), told)
    command = ["python", "eval/mmau.py", *(sys.argv[1:] if argv is None else argv)]
    if data.withheld and not args.dry_run:
        submit(benchmark, args, command, data.rows[: args.limit], ("model_output", "model_prediction"), mmau.SPACE)
    else:
        run(benchmark, args, command)


if __name__ == "__main__":
    run_main(main)
