"""Exact match on ClothoAQA, by one of the four rules in use: there is no official script, so the rule stands in the result's name.

    python eval/clotho_aqa.py --model runs/demo/model --data DATA/clothoaqa/clotho_aqa_test.csv --output runs/clotho_aqa.json
    python eval/clotho_aqa.py --predictions answers.jsonl --data DATA/clothoaqa/clotho_aqa_test.csv --system somebody

Three annotators answered each question. `unanimous`: where all agree (usual in papers); `binary`: yes-or-no questions; `majority`: two
in three agree (the "clean" list); `lmms`: binary, two of the sure agree (lmms-eval). Of the test split's 2,838 questions they keep 1,312,
1,892, 2,476 and 1,442. An answer is right when it is the same word but for case and punctuation. Where all questions are binary, the
likelier of "yes" and "no" is scored, too. Ids are `clotho_aqa_test:ROW`, the row (from 1) where the question first stands in the CSV.
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alm.arguments import option, parse_arguments, run_main
from alm.data import clothoaqa
from alm.data.clothoaqa_rules import RULES
from alm.data.example import DataError
from alm.scoring.answers import Item
from alm.scoring.choice_run import Benchmark, ChoiceArguments, run
from alm.scoring.multiple_choice import ChoiceRule
from alm.scoring.open_answers import OpenRule

YES_OR_NO = ("yes", "no")


@dataclass
class ClothoArguments(ChoiceArguments):
    data: str | None = option(None, "clotho_aqa_test.csv, or another split's file")
    audio: str | None = option(None, "folder of the clips; without it, audio_files beside --data")
    rule: Literal["unanimous", "binary", "majority", "lmms"] = option(
        "unanimous", "whose answer counts, and which questions are left out"
    )
    prompt: str = option("one-word", "how a question is put, by name: question, one-word, qwen2-audio")
    max_new_tokens: int = option(
        8, "limit of a generated answer, lmms-eval's; those that reach it are counted as truncated"
    )
    output: str = option(
        "runs/clotho_aqa.json", "result file; the rows of the items are written beside it as NAME.items.jsonl"
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(ClothoArguments, argv, description=__doc__)
    if args.data is None:
        raise DataError(
            "no --data given: clotho_aqa_test.csv of zenodo.org/records/6473207, with audio_files/ beside it"
        )
    path = Path(args.data)
    folder = Path(args.audio) if args.audio else path.parent / "audio_files"
    items, paths = [], {}
    for number, question in clothoaqa.questions(path):
        if (answer := RULES[args.rule](question)) is not None:
            binary = {given.lower() for given in question.answers} <= set(YES_OR_NO)
            agreed = f"{question.answers.count(answer)} of {len(question.answers)}"
            groups = {"kind": "yes or no" if binary else "word", "annotators": agreed}
            choices = YES_OR_NO if args.rule in ("binary", "lmms") else ()
            items.append(Item(f"{path.stem}:{number}", question.text, choices, answer.lower(), groups))
            paths[items[-1].id] = folder / question.file_name
    if not items:
        raise DataError(f"{path}: the rule {args.rule!r} leaves no question")
    items = items[: args.limit]
    rule = ChoiceRule(("exact_match",)) if items[0].choices else OpenRule()
    told = {"data": path.name, "data_sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "rule": args.rule}
    run(
        Benchmark(f"ClothoAQA ({args.rule})", items, {item.id: paths[item.id] for item in items}, rule, told),
        args,
        ["python", "eval/clotho_aqa.py", *(sys.argv[1:] if argv is None else argv)],
    )


if __name__ == "__main__":
    run_main(main)
