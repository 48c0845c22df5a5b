"""The released metadata, which is not ours to ship: `READERS_METADATA=folder pytest tests/alm/data/test_readers_real.py`.

The folder holds `clothoaqa/clotho_aqa_{train,val,test}.csv`, `musicqa/EvalMusicQA.json`, `audiocaps/v1_{val,test}.csv`,
`clotho/{val,test}.csv`, `wavcaps/sb_final.json`, `mmau/mmau-test-mini.json`, `mmar/MMAR-meta.jsonl`.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from alm.data import clothoaqa, mmar
from alm.data.catalogue import CATALOGUE, Source
from alm.data.clothoaqa_rules import RULES
from alm.data.example import ReadReport
from alm.data.leak_files import read_clip_list
from alm.data.leaks import LeakGuard

REAL = Path(os.environ.get("READERS_METADATA", "metadata"))
pytestmark = pytest.mark.skipif(
    not (REAL / "clothoaqa").is_dir(), reason="set READERS_METADATA to the released metadata"
)


@pytest.mark.parametrize(
    ("source", "rows", "examples"),
    [
        ("clothoaqa=clothoaqa,split=train", 21_132, 21_132),
        ("clothoaqa=clothoaqa,split=val", 6_192, 6_192),
        ("clothoaqa=clothoaqa,split=test", 8_514, 8_514),
        ("musicqa=musicqa,split=eval", 5_040, 5_040),
        ("audiocaps=audiocaps/v1_val.csv", 2_475, 2_475),
        ("audiocaps=audiocaps/v1_test.csv", 4_875, 4_875),
        ("audiocaps=audiocaps/v1_test.csv,captions=first", 4_875, 975),
        ("clotho=clotho/val.csv", 1_045, 5 * 1_045),
        ("clotho=clotho/test.csv,captions=first", 1_045, 1_045),
        ("wavcaps=wavcaps/sb_final.json", 1_232, 1_232),
    ],
)
def test_counts_of_the_released_files(source: str, rows: int, examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REAL)
    parsed = Source.parse(source)
    report = ReadReport(parsed.name)
    found = list(CATALOGUE[parsed.name].examples(parsed.path, report, **parsed.options))
    assert (report.rows, len(found), len({example.id for example in found})) == (rows, examples, examples)


@pytest.mark.parametrize(
    ("split", "counts"),
    [
        ("train", {"unanimous": 3_274, "binary": 4_695, "majority": 6_180, "lmms": 3_553}),
        ("val", {"unanimous": 961, "binary": 1_376, "majority": 1_823, "lmms": 1_048}),
        ("test", {"unanimous": 1_312, "binary": 1_892, "majority": 2_476, "lmms": 1_442}),
    ],
)
def test_the_rules_of_clothoaqa(split: str, counts: dict[str, int]) -> None:
    questions = clothoaqa.questions(REAL / "clothoaqa" / f"clotho_aqa_{split}.csv")
    assert {
        name: sum(rule(question) is not None for _, question in questions) for name, rule in RULES.items()
    } == counts


def test_benchmarks() -> None:
    assert len(mmar.read(REAL / "mmar" / "MMAR-meta.jsonl").items) == 1_000
    assert sum(1 for _ in read_clip_list(REAL / "mmau" / "mmau-test-mini.json").rows) == 1_000


def test_clothos_test_clips_are_in_clothoaqas_training_split() -> None:
    guard = LeakGuard.from_files([REAL / "clotho" / "test.csv"])
    report = ReadReport("clothoaqa")
    examples = clothoaqa.examples(REAL / "clothoaqa", report, split="train")
    kept = {example.meta["file_name"] for example in guard.keep(examples, report)}
    assert len(kept) == 1_174 - 289 and report.excluded == Counter({"Clotho (test.csv)": 5_202})
