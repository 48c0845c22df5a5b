"""The questions say nothing about their answers without the audio, and everything they say about the audio is true."""

from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
import pytest

from alm.data.demo.questions import KINDS, NUMBERS, Question, questions_of
from alm.data.demo.scenes import FORMS, plan
from alm.prompts import multiple_choice_prompt

TRAIN, TEST = (questions_of(plan(split, clips, 0), 0) for split, clips in (("train", 3_000), ("test", 330)))


def by_kind(questions: Iterable[Question]) -> dict[str, list[Question]]:
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        groups[question.kind].append(question)
    return groups


def spread(counts: Counter[str], labels: Iterable[str]) -> int:
    values = [counts[label] for label in labels]
    return max(values) - min(values)


def test_there_are_enough_kinds_and_every_domain_and_number_of_choices_occurs() -> None:
    assert len(KINDS) >= 14 and set(by_kind(TRAIN)) == set(by_kind(TEST)) == set(KINDS)
    assert {len(question.choices) for question in TEST} == {2, 3, 4, 5}
    assert {FORMS[q.scene.form].domain for q in TEST} == {"speech", "sound", "music"}


@pytest.mark.parametrize("questions", [TRAIN, TEST], ids=["train", "test"])
def test_choices_hold_the_answer_once_and_only_labels_of_the_kind(questions: list[Question]) -> None:
    for question in questions:
        assert question.choices.count(question.answer) == 1 and len(set(question.choices)) == len(question.choices)
        assert set(question.choices) <= set(KINDS[question.kind].labels)
        assert len(question.choices) == KINDS[question.kind].choices
        assert question.prompt == multiple_choice_prompt(question.text, question.choices)
    per_clip = Counter(question.scene.id for question in questions)
    assert set(per_clip.values()) <= {1, 2, 3, 4}


@pytest.mark.parametrize("questions", [TRAIN, TEST], ids=["train", "test"])
def test_positions_of_the_answer_are_balanced(questions: list[Question]) -> None:
    for count in (2, 3, 4, 5):
        positions = Counter(q.choices.index(q.answer) for q in questions if len(q.choices) == count)
        assert spread(positions, range(count)) <= 1  # type: ignore[arg-type]
    for kind, group in by_kind(questions).items():
        positions = Counter(question.choices.index(question.answer) for question in group)
        assert spread(positions, range(KINDS[kind].choices)) <= 1  # type: ignore[arg-type]


@pytest.mark.parametrize("questions", [TRAIN, TEST], ids=["train", "test"])
def test_answers_are_balanced_over_the_labels(questions: list[Question]) -> None:
    for kind, group in by_kind(questions).items():
        counts = Counter(question.answer for question in group)
        assert spread(counts, KINDS[kind].labels) <= 3, kind  # up to three forms of scene, each within one


def test_a_wrong_choice_is_any_other_label_equally_often() -> None:
    for kind, group in by_kind(TRAIN).items():
        labels = KINDS[kind].labels
        wrong = Counter(choice for question in group for choice in question.choices if choice != question.answer)
        expected = sum(wrong.values()) / len(labels)
        assert all(abs(wrong[label] - expected) < 5 * np.sqrt(expected) for label in labels), kind


def test_text_alone_predicts_nothing() -> None:
    """The best text-only rule, learnt on all of train: the label most frequent as answer given question, choices and position."""
    score: dict[tuple[str, str], list[int]] = defaultdict(lambda: [1, 1])
    for question in TRAIN:
        for choice in question.choices:
            score[question.text, choice][choice == question.answer] += 1
    right, chance, variance = 0, 0.0, 0.0
    for question in TEST:
        rates = [score[question.text, choice][1] / sum(score[question.text, choice]) for choice in question.choices]
        right += question.choices[int(np.argmax(rates))] == question.answer
        p = 1 / len(question.choices)
        chance, variance = chance + p, variance + p * (1 - p)
    assert abs(right - chance) < 3 * np.sqrt(variance)


@pytest.mark.parametrize("questions", [TRAIN, TEST], ids=["train", "test"])
def test_the_wording_is_independent_of_the_answer(questions: list[Question]) -> None:
    for kind, group in by_kind(questions).items():
        wordings, labels = sorted({question.text for question in group}), KINDS[kind].labels
        table = np.array([[sum(q.text == w and q.answer == a for q in group) for a in labels] for w in wordings])
        expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
        chi2 = float(((table - expected) ** 2 / expected).sum())
        freedom = (len(wordings) - 1) * (len(labels) - 1)
        assert chi2 <= freedom + 4 * np.sqrt(2 * freedom), kind


def test_both_events_are_offered_and_only_one_of_them_is_asked_for() -> None:
    """Two questions on the order of one clip would share just the true labels, and tell each other's answer."""
    for questions in (TRAIN, TEST):
        ordered = [question for question in questions if question.kind in ("first_event", "last_event")]
        assert all(set(question.scene.facts["events"]) <= set(question.choices) for question in ordered)
        assert len({question.scene.id for question in ordered}) == len(ordered)


def test_hard_kinds_are_about_a_quarter_of_the_test() -> None:
    assert 0.2 < sum(KINDS[question.kind].hard for question in TEST) / len(TEST) < 0.3


def test_answers_are_true() -> None:
    for question in TRAIN[:1_500] + TEST:
        facts = question.scene.facts
        if question.kind == "content":
            assert question.answer == question.scene.domain
        if question.kind in ("keyword", "word_in_noise"):
            assert question.answer in facts["text"].lower()
        if question.kind == "speaker_count":
            assert question.answer == NUMBERS[len({who["variant"] for who in facts["speakers"]}) - 1]
        if question.kind in ("first_speaker", "speaker_sex"):
            assert question.answer == facts["speakers"][facts.get("turns", [0])[0]]["sex"]
        if question.kind == "background":
            assert question.answer == facts["background"]
        if question.kind in ("first_event", "last_event"):
            assert question.answer == facts["events"][0 if question.kind == "first_event" else -1]


def test_sound_answers_are_single_lower_case_words() -> None:
    for question in TRAIN:
        if question.scene.domain == "sound":
            assert question.answer.isalpha() and question.answer.islower()
