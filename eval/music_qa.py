"""MusicQA's evaluation split (MU-LLaMA): open answers by the authors' text metrics, and by exact match.

    python eval/music_qa.py --model runs/demo/model --data DATA/musicqa/EvalMusicQA.json --output runs/music_qa.json
    python eval/music_qa.py --predictions answers.jsonl --data DATA/musicqa/EvalMusicQA.json --system somebody

There is no single rule. As the authors' script computes them, so that figures can be compared with published ones: `bleu_characters` and
`bleu4_characters` (BLEU called on strings, so over characters; uniform weights, and 4-grams alone), `rouge_l_recall` (with stemmer),
`meteor` (WordNet), `bertscore_recall`. Those whose package or model is absent say so; nothing stands in for them. `exact_match` is ours
and small by nature. Beside them: always the commonest answer, and the same model without the clip and with another's. Ids are
`EvalMusicQA:ROW`, rows from 1.
"""

import hashlib
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from alm.arguments import option, parse_arguments, run_main
from alm.data import musicqa
from alm.data.example import DataError, ReadReport
from alm.scoring.answers import Item
from alm.scoring.choice_run import Benchmark, ChoiceArguments, run
from alm.scoring.text_overlap import TextRule


@dataclass
class MusicArguments(ChoiceArguments):
    data: str | None = option(None, "EvalMusicQA.json")
    audio: str | None = option(None, "folder of the clips; without it, audios beside --data")
    prompt: str = option("question", "how a question is put, by name: question, one-word, qwen2-audio")
    output: str = option(
        "runs/music_qa.json", "result file; the rows of the items are written beside it as NAME.items.jsonl"
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(MusicArguments, argv, description=__doc__)
    if args.data is None:
        raise DataError(
            "no --data given: EvalMusicQA.json of huggingface.co/datasets/mu-llama/MusicQA, with audios/ beside it"
        )
    path = Path(args.data)
    examples = list(musicqa.examples(path, ReadReport("musicqa"), audio=args.audio))[: args.limit]
    asked = Counter(example.messages[0]["content"][-1]["text"].strip() for example in examples)
    clips = len({example.audio_paths()[0] for example in examples})
    items = []
    for example in examples:
        text, answer = (message["content"][-1]["text"].strip() for message in example.messages[:2])
        # four questions are asked about every clip; of the others, some give the tags away that they were made from
        groups = {
            "question": text if asked[text] > clips / 2 else "other",
            "names_tags": str("tag" in text.lower()).lower(),
        }
        items.append(Item(example.id, text, (), answer, groups))
    if not items:
        raise DataError(f"{path}: no questions in it")
    paths = {example.id: Path(example.audio_paths()[0]) for example in examples}
    told = {"data": path.name, "data_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    run(
        Benchmark("MusicQA", items, paths, TextRule.available(), told),
        args,
        ["python", "eval/music_qa.py", *(sys.argv[1:] if argv is None else argv)],
    )


if __name__ == "__main__":
    run_main(main)
