"""Scenes: balanced decks, plans that are functions of their arguments, train and test disjoint."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alm.data.demo.captions import caption
from alm.data.demo.corpus import Settings
from alm.data.demo.scenes import FORMS, Deck, allocate, plan
from alm.data.example import DataError


@given(st.integers(1, 12), st.integers(0, 200), st.integers(0, 99))
def test_decks_are_balanced_within_one(labels: int, count: int, seed: int) -> None:
    dealt = Counter(Deck(seed, "d").deal(range(labels), count))
    assert dealt.total() == count
    assert count == 0 or max(dealt.values()) - min(dealt[label] for label in range(labels)) <= 1


@given(st.integers(2, 12), st.integers(0, 20), st.integers(0, 99))
def test_pairs_differ_and_both_places_are_balanced(labels: int, rounds: int, seed: int) -> None:
    pairs = Deck(seed, "p").pairs(range(labels), labels * rounds)
    assert all(a != b for a, b in pairs)
    for place in (0, 1):
        assert set(Counter(pair[place] for pair in pairs).values()) <= {rounds}


@given(st.integers(30, 5_000))
def test_every_clip_is_allocated_and_every_form_occurs(clips: int) -> None:
    counts = allocate(clips)
    assert sum(counts.values()) == clips and set(counts) == set(FORMS)
    assert min(counts.values()) >= 1


def test_a_plan_is_a_function_of_its_arguments() -> None:
    assert plan("train", 60, 3) == plan("train", 60, 3)
    assert plan("train", 60, 3) != plan("train", 60, 4)


def test_train_and_test_share_no_voice_and_no_sentence() -> None:
    spoken = {s: [scene.facts for scene in plan(s, 600, 0) if scene.domain == "speech"] for s in ("train", "test")}
    voices = {split: {who["variant"] for facts in rows for who in facts["speakers"]} for split, rows in spoken.items()}
    texts = {split: {facts["text"] for facts in rows} for split, rows in spoken.items()}
    assert not voices["train"] & voices["test"]
    assert not texts["train"] & texts["test"]
    assert len({scene.id for split in ("train", "test") for scene in plan(split, 600, 0)}) == 1_200


def test_people_in_a_conversation_are_told_apart() -> None:
    for scene in plan("test", 600, 1):
        if scene.form == "conversation":
            people, turns = scene.facts["speakers"], scene.facts["turns"]
            assert len({who["variant"] for who in people}) == len(people) == len(set(turns))
            assert turns[0] == 0 and len(scene.facts["phrases"]) == len(turns)
            assert len(people) == 1 or {who["sex"] for who in people} == {"man", "woman"}


def test_captions_are_one_to_three_sentences_and_hold_the_transcript() -> None:
    for scene in plan("train", 300, 2):
        text = caption(scene)
        assert text[0].isupper() and text[-1] in '."' and "  " not in text and "{" not in text
        if "word" in scene.facts:
            assert f'"{scene.facts["text"]}"' in text
        if scene.domain != "speech":
            assert 2 <= text.count(". ") + 1 <= 3


@pytest.mark.parametrize(("field", "value"), [("train_clips", 5), ("test_clips", 0), ("seed", -1)])
def test_bad_settings_are_named(field: str, value: int) -> None:
    with pytest.raises(DataError, match=field):
        Settings(**{field: value})
