"""Questions for GRPO from the demo corpus's training sets: those with choices, as rows of MMAR's form.

python benchmarks/small_questions.py --corpus runs/small/corpus --every 10 --output runs/small/questions.jsonl
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from alm.arguments import parse_arguments, run_main

ASKED = "\nSelect one option from the provided choices:\n"


@dataclass
class QuestionArguments:
    corpus: str = field(metadata={"help": "folder of the demo corpus"})
    output: str = field(metadata={"help": "JSON lines to write"})
    every: int = field(default=10, metadata={"help": "take every so manieth question"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(QuestionArguments, argv, description=__doc__)
    corpus = Path(args.corpus).resolve()
    rows = []
    for row in json.loads((corpus / "compa_r/compa_r_train.json").read_text()):
        rows.append((corpus / "compa_r" / row["audio_id"], row["instruction"], row["output"]))
    for row in json.loads((corpus / "musicqa/FinetuneMusicQA.json").read_text()):
        human, gpt = (turn["value"] for turn in row["conversation"])
        rows.append((corpus / "musicqa/audios" / row["audio_name"], human, gpt))
    kept = [
        {"question": question, "choices": choices.split("\n"), "answer": answer, "audio_path": str(path)}
        for path, (question, asked, choices), answer in (
            (path, text.partition(ASKED), said) for path, text, said in rows
        )
        if asked
    ][:: args.every]
    Path(args.output).write_text("".join(json.dumps(row) + "\n" for row in kept))
    print(f"{len(kept)} questions with choices")


if __name__ == "__main__":
    run_main(main)
