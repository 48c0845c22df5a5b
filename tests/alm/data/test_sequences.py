"""Sequences: every example accounted for, grouping equals one conversation, labels, contract."""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError, Example, question_answer
from alm.data.packing import pack
from alm.data.sequence_table import ClipPart, CompactSequence, SequenceTable, open_if_same, spell_out, write_table
from alm.data.sequences import SequenceBuilder, SequenceReport, preview
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

    def key_of_item(self, item: dict[str, Any]) -> str:
        if item["path"] not in CLIPS:
            raise DataError(f"{item['path']} unknown")
        return item["path"]

    def frames_by_key(self, key: str) -> int:
        return CLIPS[key].shape[1]

    def codes_by_key(self, key: str) -> Any:
        return CLIPS[key]


def example(number: int, clip: str | None, source: str = "set", question: str = "What is it?") -> Example:
    return Example(f"x:{number}", source, question_answer(clip, f"{question} {number}", f"a dog {number}"))


def build(
    language_model: LoadedCheckpoint, examples: list[Example], **options: Any
) -> tuple[list[Any], SequenceReport]:
    rows, _, report = compact(language_model, examples, **options)
    return rows, report


def spelled_clip(language_model: LoadedCheckpoint, clip: ClipPart) -> Any:
    return language_model.processor.vocabulary.codes_to_ids(CLIPS[clip.key][:, : clip.frames])


def compact(
    language_model: LoadedCheckpoint, examples: list[Example], **options: Any
) -> tuple[list[Any], list[Any], SequenceReport]:
    """Sequences spelled out, the clips they use, and the report; a compact sequence's counts are those of its spelling."""
    report = SequenceReport()
    builder = SequenceBuilder(language_model.processor, FakeStore(), **{"max_length": 500, **options})  # type: ignore[arg-type]
    _vocabulary, rows = language_model.processor.vocabulary, []
    for row in builder.build(examples, report):
        ids, flags = np.array(row.ids), np.array(row.labelled)
        rows.append(spell_out(ids, flags, lambda n: spelled_clip(language_model, builder.clips[n]), row.source))
        assert (row.length, row.labels) == (len(rows[-1].input_ids), int((rows[-1].labels != -100).sum()))
    return rows, builder.clips, report


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
        assert row.input_ids.dtype == row.labels.dtype == np.int64
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
    with pytest.raises(DataError, match=r"set x:0: 2033 tokens, but sequences have at most 512"):
        build(language_model, huge, max_length=5000)
    assert build(language_model, huge, max_length=5000, too_long="skip")[1].too_long == {"set": 1}


def test_cropping_cuts_what_is_heard_and_nothing_that_is_said(language_model: LoadedCheckpoint) -> None:
    examples = [example(0, "clip3.wav"), example(1, "clip1.wav"), example(2, None, question="a dog " * 100)]
    whole, _ = build(language_model, examples[:1])
    limit = len(whole[0].input_ids) - 4
    rows, report = build(language_model, examples, max_length=limit, too_long="crop")
    assert report.cropped == {"set": 1} and report.too_long == {"set": 1} and len(rows) == 2
    voc, full = language_model.processor.vocabulary, whole[0].input_ids.tolist()
    end = full.index(voc.end_id)
    assert rows[0].input_ids.tolist() == full[: end - 4] + full[end:] and len(rows[0].input_ids) == limit
    said = [token for token in rows[0].labels if token != -100]
    assert said == [token for token in whole[0].labels if token != -100]
    item = {"type": "audio", "path": "clip3.wav"}
    spoken = Example("x", "set", [{"role": "assistant", "content": [item]}])  # cut, it would teach breaking off
    assert build(language_model, [spoken], max_length=10, too_long="crop")[1].too_long == {"set": 1}


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
    examples = [example(n, f"clip{n % 3}.wav") for n in range(5)]

    def write(folder: str, some: list[Example]) -> str:
        builder = SequenceBuilder(language_model.processor, FakeStore(), 500)  # type: ignore[arg-type]
        return write_table(builder.build(some), builder.clips, tmp_path / folder, lambda: {"inputs": "abc"})

    digest = write("a", examples)
    assert digest == write("b", examples) != write("c", examples[1:])
    table = open_if_same(tmp_path / "a", "abc")
    assert table is not None and open_if_same(tmp_path / "a", "abd") is None
    assert open_if_same(tmp_path / "none", "abc") is None and not list(tmp_path.rglob("*.partial"))
    for again in (table, pickle.loads(pickle.dumps(table))):
        assert len(again) == 5 and [clip.key for clip in again.clips] == ["clip0.wav", "clip1.wav", "clip2.wav"]
        for number, row in enumerate(build(language_model, examples)[0]):
            ids, labelled, source = again.compact(number)
            spelled = spell_out(
                ids, labelled, lambda n, clips=again.clips: spelled_clip(language_model, clips[n]), source
            )
            assert np.array_equal(spelled.input_ids, row.input_ids) and np.array_equal(spelled.labels, row.labels)
            assert source == "set"
            assert again.lengths[number] == len(row.input_ids)
    assert isinstance(table, SequenceTable)


def test_a_table_of_many_blocks(tmp_path: Path) -> None:
    rows = [CompactSequence([n, n + 1], [False, True], 2, 1, "set") for n in range(9_000)]
    write_table(rows, [], tmp_path / "table")
    table = SequenceTable(tmp_path / "table")
    assert len(table) == 9_000
    for number in (0, 4_095, 4_096, 8_191, 8_192, 8_999):
        assert table.compact(number)[0].tolist() == [number, number + 1]


def test_preview_marks_what_is_learned(language_model: LoadedCheckpoint) -> None:
    builder = SequenceBuilder(language_model.processor, FakeStore(), 500)  # type: ignore[arg-type]
    (row,) = builder.build([example(7, "clip2.wav")])
    text = preview(row, builder.clips, language_model.processor)
    assert (
        "<|audio_start|>(clip clip2.wa, 11 frames)<|audio_end|>What is it? 7" in text
        and "⟦a dog 7<|im_end|>⟧\n" in text
    )


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(0, 3))
def test_packing_loses_and_cuts_nothing(lengths: list[int], seed: int) -> None:
    rows = pack(lengths, 60, seed)
    assert sorted(number for row in rows for number in row.tolist()) == list(range(len(lengths)))
    assert all(sum(lengths[number] for number in row) <= 60 for row in rows)
    assert [row.tolist() for row in rows] == [row.tolist() for row in pack(lengths, 60, seed)]
    # best-fit decreasing never needs more than 11/9 of the fewest rows, plus one (Johnson 1973)
    assert len(rows) <= 11 / 9 * math.ceil(sum(lengths) / 60) + 1 + sum(2 * length > 60 for length in lengths)
    for wrong in ([61], [0]):
        with pytest.raises(DataError, match="1 to 60 tokens"):
            pack(wrong, 60)


def test_questions_together_are_no_longer_than_the_model_takes(language_model: LoadedCheckpoint) -> None:
    examples = [example(number, "clip0.wav") for number in range(4)]
    alone, _ = build(language_model, examples[:1])
    language_model.processor.max_length = 2 * len(alone[0].input_ids)
    rows, report = build(language_model, examples, questions_per_conversation=4)
    assert max(len(row.input_ids) for row in rows) <= language_model.processor.max_length
    assert report.examples.total() == 4 and report.too_long.total() == 0
