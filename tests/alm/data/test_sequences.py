"""Sequences: every example accounted for, grouping equals one conversation, labels, contract."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError, Example, question_answer
from alm.data.sequences import SequenceBuilder, SequenceReport, preview, write_sequences
from alm.vocabulary import ContractError

CLIPS = {f"clip{n}.wav": np.arange(n, 5 * n + 3)[None] % 64 for n in range(4)}


class FakeStore:
    """The part of a token store that sequences use."""

    folder = "fake-store"

    def __init__(self, fingerprint: str = "toy-codec-0001", num_codebooks: int = 1, codebook_size: int = 64) -> None:
        self.contract = {
            "codec_fingerprint": fingerprint,
            "num_codebooks": num_codebooks,
            "codebook_size": codebook_size,
        }

    def codes(self, path: str) -> Any:
        if path not in CLIPS:
            raise DataError(f"{path} unknown")
        return CLIPS[path]


def example(number: int, clip: str | None, source: str = "set", question: str = "What is it?") -> Example:
    return Example(f"x:{number}", source, question_answer(clip, f"{question} {number}", f"a dog {number}"))


def build(
    language_model: LoadedCheckpoint, examples: list[Example], **options: Any
) -> tuple[list[Any], SequenceReport]:
    report = SequenceReport()
    builder = SequenceBuilder(language_model.processor, FakeStore(), **{"max_length": 500, **options})  # type: ignore[arg-type]
    return list(builder.build(examples, report)), report


def test_one_question_each_is_the_processor_s_own(language_model: LoadedCheckpoint) -> None:
    examples = [example(0, "clip2.wav"), example(1, None), example(2, "clip2.wav")]
    rows, report = build(language_model, examples)
    for row, one in zip(rows, examples, strict=True):
        messages = one.messages
        if one.audio_paths():
            item = {"type": "audio", "codes": CLIPS["clip2.wav"]}
            messages = [{**messages[0], "content": [item, messages[0]["content"][1]]}, messages[1]]
        expected = language_model.processor.training_ids(messages)
        assert row.input_ids.tolist() == expected.input_ids and row.labels.tolist() == expected.labels
        assert row.input_ids.dtype == row.labels.dtype == np.int32
    assert report.tokens == sum(len(row.input_ids) for row in rows) and report.sequences == {"set": 3}
    assert report.labelled == sum(int((row.labels != -100).sum()) for row in rows)


same_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@same_fixture
@given(
    st.lists(st.tuples(st.sampled_from([*CLIPS, None]), st.sampled_from("ab")), max_size=12),
    st.integers(1, 4),
    st.integers(80, 200),
)
def test_every_example_is_asked_once(
    language_model: LoadedCheckpoint, asked: list[tuple[str | None, str]], together: int, max_length: int
) -> None:
    examples = [example(n, clip, source) for n, (clip, source) in enumerate(asked)]
    rows, report = build(language_model, examples, questions_per_conversation=together, max_length=max_length)
    again, _ = build(language_model, examples, questions_per_conversation=together, max_length=max_length)
    assert [row.input_ids.tolist() for row in rows] == [row.input_ids.tolist() for row in again]
    processor = language_model.processor
    start, turn = processor.vocabulary.start_id, processor.tokenizer.convert_tokens_to_ids("<|im_start|>")
    texts = [processor.tokenizer.decode(row.input_ids) for row in rows]
    for n, (clip, source) in enumerate(asked):
        found = [i for i, text in enumerate(texts) if f"What is it? {n}<|im_end|>" in text]
        assert len(found) == 1 and rows[found[0]].source == source
        if clip is not None:  # behind its own clip
            codes = processor.vocabulary.codes_to_ids(CLIPS[clip]).tolist()
            ids = rows[found[0]].input_ids.tolist()
            assert ids.count(start) == 1 and ids[ids.index(start) + 1 :][: len(codes) + 1] == [*codes, start + 1]
    for row in rows:
        assert len(row.input_ids) <= max_length and (row.input_ids == turn).sum() <= 2 * together
        answers = [token for token in row.labels if token != -100]
        assert answers.count(turn + 1) == (row.input_ids == turn).sum() // 2
    assert report.examples.total() == len(asked)


def test_descriptions_come_behind_the_questions_they_would_answer(language_model: LoadedCheckpoint) -> None:
    told = "a dog barks twice while rain falls on the roof of the house"
    examples = [Example("d", "set", question_answer("clip1.wav", "Describe it.", told))]
    for seed in range(4):
        (row,), _ = build(
            language_model,
            [*examples, *(example(n, "clip1.wav") for n in range(5))],
            questions_per_conversation=6,
            seed=seed,
        )
        assert language_model.processor.tokenizer.decode(row.input_ids).rstrip().endswith(f"{told}<|im_end|>")


def test_grouping_is_one_conversation(language_model: LoadedCheckpoint) -> None:
    examples = [example(n, "clip1.wav") for n in range(3)]
    (row,), _ = build(language_model, examples, questions_per_conversation=3)
    processor = language_model.processor
    order = [int(n) for n in "012" if f"? {n}" in processor.tokenizer.decode(row.input_ids)]
    order.sort(key=lambda n: processor.tokenizer.decode(row.input_ids).index(f"? {n}"))
    messages: list[Any] = []
    for position, n in enumerate(order):
        question, answer = examples[n].messages
        audio = [{"type": "audio", "codes": CLIPS["clip1.wav"]}] if position == 0 else []
        messages += [{**question, "content": [*audio, question["content"][1]]}, answer]
    expected = processor.training_ids(messages)
    assert row.input_ids.tolist() == expected.input_ids and row.labels.tolist() == expected.labels


def test_too_long_is_an_error_or_counted(language_model: LoadedCheckpoint) -> None:
    examples = [example(0, "clip1.wav"), example(1, "clip1.wav", question="a dog " * 100), example(2, "clip1.wav")]
    with pytest.raises(DataError, match=r"set x:1: \d+ tokens, but sequences have at most 100.*--too_long skip"):
        build(language_model, examples, max_length=100)
    for together in (1, 3):
        rows, report = build(
            language_model, examples, max_length=100, too_long="skip", questions_per_conversation=together
        )
        assert report.too_long == {"set": 1} and len(rows) == (2 if together == 1 else 1)
    huge = [example(0, "clip1.wav", question="a dog " * 1000)]  # longer than the model's own limit
    with pytest.raises(DataError, match="set x:0: a conversation of"):
        build(language_model, huge, max_length=5000)
    assert build(language_model, huge, max_length=5000, too_long="skip")[1].too_long == {"set": 1}


def test_clips_without_tokens_are_counted_up_to_a_limit(language_model: LoadedCheckpoint) -> None:
    examples = [example(n, "clip1.wav" if n else "gone.wav") for n in range(20)]
    rows, report = build(language_model, examples)
    assert len(rows) == 19 and report.without_tokens == {"set": 1} and report.missing_audio == ["gone.wav"]
    with pytest.raises(DataError, match=r"1 of 20 examples .*first: gone\.wav.*--max_missing"):
        build(language_model, examples, max_missing=0.01)


def test_another_codec_s_store_is_refused(language_model: LoadedCheckpoint) -> None:
    for store, message in [
        (FakeStore("other-0002"), r"fake-store has codec fingerprint other-0002.*toy-codec-0001"),
        (FakeStore(codebook_size=32), "codebook_size 32, the language model 64"),
    ]:
        with pytest.raises(ContractError, match=message):
            SequenceBuilder(language_model.processor, store, 100)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at least 1"):
        build(language_model, [], questions_per_conversation=0)


def test_written_and_mapped(language_model: LoadedCheckpoint, tmp_path: Path) -> None:
    rows, _ = build(language_model, [example(n, "clip3.wav") for n in range(5)])
    digest = write_sequences(iter(rows), tmp_path / "a" / "s.arrow")
    assert digest == write_sequences(rows, tmp_path / "b.arrow") != write_sequences(rows[1:], tmp_path / "c.arrow")
    data = Dataset.from_file(str(tmp_path / "a" / "s.arrow"))
    assert data["input_ids"][3] == rows[3].input_ids.tolist() and data["labels"][4] == rows[4].labels.tolist()
    assert data["source"][0] == "set" and not list(tmp_path.rglob("*.partial"))


def test_preview_marks_what_is_learned(
    language_model: LoadedCheckpoint, make_language_model: Callable[..., Any]
) -> None:
    (row,), _ = build(language_model, [example(7, "clip2.wav")])
    text = preview(row, language_model.processor)
    assert "<|audio_start|>(11 audio tokens)<|audio_end|>What is it? 7" in text and "⟦a dog 7<|im_end|>⟧\n" in text
