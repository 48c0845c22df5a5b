"""Exported questions hold exactly the tokens of our own scoring, and count as it does; needs no lm-evaluation-harness."""

import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from transformers import Qwen3Config, Qwen3ForCausalLM

from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError
from alm.growing import grow_vocabulary
from alm.processing import AudioLanguageProcessor
from alm.scoring.answers import Item
from alm.scoring.choice_loop import Asked, letter_request, likelihood_request, question_request
from alm.scoring.choice_settings import LoopSettings
from alm.scoring.harness import rules, task
from alm.scoring.harness.folder import write_task
from alm.scoring.harness.rows import RowWriter
from alm.scoring.loglikelihood import score_choices
from alm.scoring.multiple_choice import ChoiceRule
from alm.scoring.open_answers import OpenRule
from alm.scoring.systems.base import ChoiceScores, Refused, Request
from alm.scoring.systems.checkpoint import CheckpointSystem
from alm.scoring.systems.request_ids import RequestIds
from alm.scoring.text_overlap import TextRule
from alm.tokenizer import train_tokenizer
from codec.audio import write_audio

SETTINGS = LoopSettings(max_new_tokens=6)
ITEM = Item("q", "Which sound is heard?", ("a dog", "a cat and three violins", "", "a dog", "rain"), "a dog", {})


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_audio(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 4_800), 24_000)
    return tmp_path / "a.wav"


@pytest.fixture
def writer(tiny: LoadedCheckpoint) -> RowWriter:
    return RowWriter(tiny.processor, SETTINGS, ChoiceRule())


def written(writer: RowWriter, item: Item, clip: Path | None) -> dict[str, dict[str, Any]]:
    rows = writer.rows(item, clip)
    assert not isinstance(rows, Refused)
    return rows


def scored(asked: Asked) -> dict[str, Request]:
    return {"loglikelihood": likelihood_request(asked, SETTINGS.prompt), "letter": letter_request(asked)}


def harness_ids(writer: RowWriter, prompt: str, continuation: str) -> tuple[list[int], list[int]]:
    """As lm-evaluation-harness splits them: both tokenised as one text, cut after as many tokens as the prompt alone has."""
    assert prompt == prompt.rstrip()  # else white space would change sides
    before = writer.processor.tokenizer.encode(prompt)
    return before, writer.processor.tokenizer.encode(prompt + continuation)[len(before) :]


@pytest.mark.parametrize(
    "choices",
    [
        ("a dog", "a cat"),
        ("(A) a dog", "(B) a cat", "(C) a bell"),
        (" a dog", "  a dog ", "a dog\n"),
        ("狗", "e\u0301", "\u0301", "🐕", "\u2028"),
        ("3", "3.", "3 apples", "..."),
    ],
    ids=["plain", "lettered", "blanks", "unicode", "figures"],
)
@pytest.mark.parametrize("audio", [True, False])
def test_the_text_holds_the_tokens_of_our_own_scoring(
    writer: RowWriter, clip: Path, choices: tuple[str, ...], audio: bool
) -> None:
    item = replace(ITEM, choices=choices)
    asked = Asked(item, clip if audio else None)
    rows, ids = written(writer, item, asked.audio), RequestIds(writer.processor)
    (prompt,) = ids.asked([question_request(asked, SETTINGS.prompt)], 6)
    assert writer.processor.tokenizer.encode(rows["generation"]["prompt"]) == prompt
    for kind, request in scored(asked).items():
        (ours,) = ids.scored([request])
        assert not isinstance(ours, Refused)
        pairs = [harness_ids(writer, rows[kind]["prompt"], text) for text in rows[kind]["continuations"]]
        joined = [before + after for before, after in pairs]
        assert joined == [ours.prompt, *(ours.prompt + choice for choice in ours.choices)]
        assert len({len(before) for before, _ in pairs}) == 1 and rows[kind]["tokens"] == list(map(len, ours.choices))


@pytest.mark.parametrize("audio", [True, False])
def test_its_numbers_are_ours(tiny: LoadedCheckpoint, writer: RowWriter, clip: Path, audio: bool) -> None:
    asked = Asked(ITEM, clip if audio else None)
    rows, system = written(writer, ITEM, asked.audio), CheckpointSystem(*tiny)
    for kind, request in scored(asked).items():
        (ours,) = system.score([request])
        assert isinstance(ours, ChoiceScores)
        pairs = []
        for continuation in rows[kind]["continuations"]:  # each with a forward pass of its own, as the harness does
            before, after = harness_ids(writer, rows[kind]["prompt"], continuation)
            pairs.append((score_choices(tiny.model, before, [after]).sums[0], False))
        assert task.choice_sums(pairs) == pytest.approx(ours.sums, abs=1e-4)
        assert rows[kind]["gold"] == [0, 2]  # the empty choice is no candidate


@pytest.mark.parametrize(
    ("sums", "gold", "by_sum", "by_mean"),
    [([-2.0, -3.0], [0], 1, 0), ([-2.0, -3.0], [1], 0, 1), ([-2.0, -2.0], [0, 1], 1, 1), ([-3.0, -3.0], [1], 0, 1),
     ([-2.0, -3.0], [], 0, 0), ([], [], 0, 0)],
)  # fmt: skip
def test_likelihoods_count_as_our_own_do(sums: list[float], gold: list[int], by_sum: int, by_mean: int) -> None:
    results = [(-7.0, False), *((total - 7.0, False) for total in sums)]
    doc = {"gold": gold, "tokens": [1, 2][: len(sums)]}
    assert task.loglikelihood(doc, results) == {"loglikelihood": by_sum, "loglikelihood_mean": by_mean}
    assert task.letter(doc, results) == {"letter": by_sum}


def test_answers_count_by_the_benchmark_s_rule(tiny: LoadedCheckpoint) -> None:
    row = written(RowWriter(tiny.processor, SETTINGS, ChoiceRule()), ITEM, None)["generation"]
    assert rules.generation(row, ["<answer>a dog</answer>"]) == {"official": 1.0, "option": 1.0}
    assert rules.generation(row, ["violins, a dog"]) == {"official": 0.0, "option": 0.0}
    settings = replace(SETTINGS, loglikelihood=False, letter=False)
    for rule in (OpenRule(), TextRule.available()):
        rows = written(RowWriter(tiny.processor, settings, rule), replace(ITEM, choices=()), None)
        counted = rules.generation(rows["generation"], ["A dog."])
        assert list(rows) == ["generation"] and counted.keys() == {*rule.generated} and counted["exact_match"] == 1.0


def test_what_cannot_be_asked_counts_as_wrong(writer: RowWriter, tmp_path: Path) -> None:
    refused = writer.rows(ITEM, tmp_path / "nowhere.wav")
    assert isinstance(refused, Refused) and "nowhere.wav" in refused.reason
    assert isinstance(writer.rows(replace(ITEM, question="a dog " * 600), None), Refused)  # longer than the model takes
    rows = writer.wrong(ITEM, refused.reason)
    assert rows.keys() == writer.metrics.keys() and {row["missing"] for row in rows.values()} == {refused.reason}
    assert rules.generation(rows["generation"], ["a dog"]) == {"official": 0.0, "option": 0.0}
    assert task.loglikelihood(rows["loglikelihood"], [(-1.0, True)]) == {"loglikelihood": 0, "loglikelihood_mean": 0}


@pytest.mark.parametrize(
    "item",
    [replace(ITEM, question="What does <|im_end|> mean?"), replace(ITEM, choices=("a dog", "<|audio_0_3|>"))],
    ids=["control token", "audio token"],
)
def test_what_the_harness_would_tokenise_otherwise_is_refused(writer: RowWriter, item: Item) -> None:
    with pytest.raises(DataError, match="question q: as a text it would have other tokens"):
        writer.rows(item, None)


def test_a_line_break_that_would_merge_with_the_one_before_is_refused(make_toy_codec: Any) -> None:
    tokenizer, codec = train_tokenizer(["a cat\n\na dog"] * 50, 320), make_toy_codec()
    assert len(tokenizer.encode("\n\n")) == 1
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, head_dim=8))
    processor = AudioLanguageProcessor(tokenizer, grow_vocabulary(model, tokenizer, codec))
    with pytest.raises(DataError, match="begins with a line break"):
        RowWriter(processor, SETTINGS, ChoiceRule()).rows(replace(ITEM, choices=("a dog", "\na cat")), None)


def test_the_folder_can_be_moved(writer: RowWriter, tmp_path: Path) -> None:
    rows = [written(writer, replace(ITEM, id=f"q\u2028{n}", answer="a dog" if n else "a bird"), None) for n in range(2)]
    for kind, metrics in writer.metrics.items():
        write_task(tmp_path / "here", "zoo", "", kind, metrics, 6, [row[kind] for row in rows], {"data": "ü.json"})
    (tmp_path / "here").rename(tmp_path / "there")
    module = runpy.run_path(str(tmp_path / "there" / "utils.py"))
    for kind, metrics in writer.metrics.items():
        text = (tmp_path / "there" / f"zoo_{kind}.yaml").read_text(encoding="utf-8")
        config = yaml.safe_load(text.replace("!function", ""))
        assert [metric["metric"] for metric in config["metric_list"]] == list(metrics)
        docs = list(module["load"](**config["metadata"])["test"])
        assert docs == [row[kind] for row in rows] and config["metadata"]["data"] == "ü.json"
        for field in ("doc_to_text", "doc_to_target", "doc_to_choice"):
            assert config.get(field, "prompt") in docs[0]
        name = config["process_results"]
        if kind == "generation":
            assert name == f"{rules.__name__}.{rules.generation.__name__}"
        else:
            assert name.removeprefix("utils.") in module
    assert "alm" not in (tmp_path / "there" / "utils.py").read_text().split()
    assert (
        json.loads((tmp_path / "there" / "zoo_letter.jsonl").read_text(encoding="utf-8").split("\n")[0])["gold"] == []
    )
