"""A benchmark whose answers are withheld: the predictions in the organisers' form, and a result that claims no accuracy."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from alm.arguments import beside
from alm.data.example import DataError
from alm.scoring.choice_run import Benchmark, ChoiceArguments, score
from alm.scoring.item_log import read_rows
from alm.scoring.results import Result, render_table, write_result, write_text_atomically


def submit(
    benchmark: Benchmark,
    args: ChoiceArguments,
    command: Sequence[str],
    rows: Sequence[dict[str, Any]],
    keys: Sequence[str],
    where: str,
) -> Result | None:
    """Answer the questions and write `rows`, one per question in order, with the prediction under each of `keys`.

    A question without an answer gets an empty text, which counts as wrong. The result file tells counts and manifest, and why there
    is no score. Only generation matters: likelihoods, controls and permutations are left out.
    None of a process that is not the main one of its launch.
    """
    if args.lm_eval:
        raise DataError("the answers are withheld: tasks of lm-evaluation-harness would count every answer as wrong")
    quick = replace(args, generation=True, loglikelihood=False, letter=False, controls=["none"], permutations="none")
    found = score(benchmark, quick, command)
    if found is None:
        return None
    said = {row["id"]: row["prediction"] or "" for row in read_rows(args.items_path)}
    file = beside(args.output, ".submission.json")
    filled = [{**row, **dict.fromkeys(keys, said.get(row["id"], ""))} for row in rows]
    write_text_atomically(file, json.dumps(filled, indent=2, ensure_ascii=False) + "\n")
    reason = f"the answers are withheld; upload {file.name} at {where}"
    result = replace(
        found,
        scores={},
        groups={},
        controls={},
        counts={name: count for name, count in found.counts.items() if name != "gold_not_among_choices"},
        unavailable=dict.fromkeys(benchmark.rule.generated, reason),
        manifest={name: value for name, value in found.manifest.items() if name != "constant_position"}
        | {"submission": file.name},
    )
    write_result(result, args.output)
    print(render_table(result))
    print(f"\nNo accuracy: {reason}.\nsubmission: {file}; result: {args.output}; rows of the items: {args.items_path}")
    return result
