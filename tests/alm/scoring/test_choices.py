import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alm.scoring.choices import (
    bare_answer,
    bare_choices,
    gold_indices,
    gold_text,
    normalise,
    official_match,
    parse_option,
)

WORDS = st.sampled_from(
    ["a", "A", "the", "is", "dog", "Dog", "cat", "3/4", "it's", "½", "狗", "D#:maj/1", "_x", "-", "", "Ä"]
)
TEXTS = st.lists(WORDS, max_size=4).map(" ".join)


def words_of(text: str) -> list[str]:
    """Maximal runs of word characters, by hand: what `\\b\\w+\\b` finds."""
    runs, run = [], ""
    for character in text.lower() + " ":
        if character.isalnum() or character == "_":
            run += character
        elif run:
            runs.append(run)
            run = ""
    return runs


def official_reference(prediction: str, answer: str, choices: list[str]) -> bool:
    """The rule, told again in another way: every gold word is said, and no said word is one that only wrong choices have."""
    said, gold = words_of(prediction), words_of(answer)
    if len(said) == 0:
        return False
    for word in gold:
        if word not in said:
            return False
    for choice in choices:
        words = words_of(choice)
        is_the_gold = all(word in gold for word in words) and all(word in words for word in gold)
        if not is_the_gold and any(word in said and word not in gold for word in words):
            return False
    return True


@given(TEXTS, TEXTS, st.lists(TEXTS, min_size=1, max_size=6))
def test_official_rule_equals_an_independent_telling(prediction: str, answer: str, choices: list[str]) -> None:
    assert official_match(prediction, answer, choices) == official_reference(prediction, answer, choices)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=6), st.data())
def test_official_rule_over_answers_built_from_choices(noise: str, choices: list[str], data: st.DataObject) -> None:
    answer = data.draw(st.sampled_from(choices))
    prediction = f"{data.draw(st.sampled_from(choices))} {noise}"
    assert official_match(prediction, answer, choices) == official_reference(prediction, answer, choices)


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        ("From far to near", True),  # order does not count
        ("FROM NEAR, TO FAR!", True),
        ("(A) From near to far", False),  # "a" is a word of a wrong choice
        ("B. From near to far", True),
        ("The answer is from near to far", False),  # so is "the"
        ("near to far", False),
        ("from near to far, not a circle", False),
        ("", False),
        ("…", False),
    ],
)
def test_official_rule_on_known_answers(prediction: str, right: bool) -> None:
    assert (
        official_match(prediction, "From near to far", ["In a circle", "From near to far", "the same place", ""])
        is right
    )


def test_official_rule_has_its_known_blind_spots() -> None:
    assert official_match("D:maj/1", "D#:maj/1", ["D#:maj/1", "D:min"])  # "#" is no word character
    assert official_match("4/3", "3/4", ["3/4", "4/4"])
    assert not official_match("twenty one", "twenty_one", ["twenty_one", "two"])


CHOICES = ["Piano", "Electric guitar", "Drums", "Flute", "The bells."]


@pytest.mark.parametrize(
    ("prediction", "index"),
    [
        ("Piano", 0),
        ("  electric   GUITAR.", 1),
        ("B", 1),
        ("b", 1),
        ("(b)", 1),
        ("B.", 1),
        ("(C) Drums", 2),
        ("D. Flute", 3),
        ("E", 4),  # more than four choices
        ("The bells", 4),
        ("<answer>Flute</answer>", 3),
        ("I hear wood.\n<answer>(D)</answer>", 3),
        ("<answer>Flute", 3),  # cut before the tag was closed
        ("<answer>Piano</answer> no: <answer>Drums</answer>", 2),
        ("The answer is drums.", 2),
        ("It is low, so the correct answer is: **B**", 1),
        ("Answer: (C) Drums", 2),
        ("option C", 2),
        ("答案是B", 1),
        ("Some thoughts first.\nFlute", 3),
        ('"Flute"', 3),
        ("B. because of its strings", 1),
        # nothing that could be guessed
        ("", None),
        (" ", None),
        ("F", None),
        ("Z.", None),
        ("A guitar", None),
        ("(A) Flute", None),  # letter and text disagree
        ("Piano Drums", None),
        ("I cannot tell", None),
        ("maybe the piano, maybe not", None),
    ],
)
def test_option_parser(prediction: str, index: int | None) -> None:
    assert parse_option(prediction, CHOICES) == index


def test_text_wins_over_letter_where_choices_are_letters() -> None:
    assert parse_option("A", ["C", "A", "G"]) == 1
    assert parse_option("(A)", ["C", "A", "G"]) == 0
    assert parse_option("D:maj", ["D:maj", "E:min"]) == 0


def test_empty_and_repeated_choices() -> None:
    assert parse_option("", ["dog", ""]) is None
    assert parse_option("Dog", ["cat", "dog", "Dog "]) == 1
    assert gold_indices("dog", ["cat", "dog", "Dog "]) == {1, 2}
    assert gold_indices("horse", ["cat", "dog"]) == frozenset()
    assert parse_option("yes", ["Yes!", "Yes."]) is None  # two choices are equally close


def test_lettered_choices_are_looked_through_only_if_all_run() -> None:
    assert bare_choices(["(A) dog", "(B) cat"]) == ("dog", "cat")
    assert bare_choices(["A. dog", "B) cat", "C: cow"]) == ("dog", "cat", "cow")
    assert bare_choices(["(A) dog", "(C) cat"]) == ("(A) dog", "(C) cat")
    assert bare_choices(["A:maj", "B:min"]) == ("A:maj", "B:min")
    lettered = ["(A) dog", "(B) cat"]
    assert [parse_option(p, lettered) for p in ("cat", "(B) cat", "B", "(A) cat")] == [1, 1, 1, None]
    assert gold_indices("B", lettered) == gold_indices("cat", lettered) == gold_indices("(B) cat", lettered) == {1}


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=2, max_size=12), min_size=1, max_size=9), st.data())
def test_parser_finds_every_choice_in_every_form(choices: list[str], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(choices) - 1))
    text, letter = choices[index], string.ascii_uppercase[index]
    same = {other for other, choice in enumerate(choices) if normalise(choice) == normalise(text)}
    found = parse_option(text, choices)
    assert (found in same) if normalise(text) else (found is None)
    if not any(normalise(f"({letter}) {text}") == normalise(choice) for choice in choices) and normalise(text):
        assert parse_option(f"({letter}) {text}", choices) in same


@given(st.text(max_size=40), st.lists(st.text(max_size=8), min_size=1, max_size=6))
def test_parser_never_fails_and_never_leaves_the_choices(prediction: str, choices: list[str]) -> None:
    found = parse_option(prediction, choices)
    assert found is None or (0 <= found < len(choices))
    bare_answer(prediction, choices)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=5), st.data())
def test_the_cut_leaves_bare_choices_alone(choices: list[str], data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(choices))
    assert bare_answer(text, choices) == text.strip()


@pytest.mark.parametrize(
    ("generated", "cut"),
    [
        ("Flute", "Flute"),
        ("(D) Flute", "Flute"),
        ("The answer is Flute.", "Flute."),
        ("<answer>D. Flute</answer>", "Flute"),
        ("D", "D"),  # a letter is not turned into a text: the official rule gets what was said
        ("A guitar is heard", "A guitar is heard"),
        ("", ""),
    ],
)
def test_the_cut(generated: str, cut: str) -> None:
    assert bare_answer(generated, CHOICES) == cut


def test_the_cut_keeps_names_with_initials() -> None:
    assert bare_answer("F. Scott Fitzgerald", ["F. Scott Fitzgerald", "E. A. Poe"]) == "F. Scott Fitzgerald"


OFFICIAL_CASES = [
    # prediction, gold, choices, right
    # order, case, punctuation
    ("near to far, from", "From near to far", ("From near to far", "Still"), True),
    ("4/3", "3/4", ("3/4", "2/4"), True),
    ("MAN", "Man", ("Man", "Woman"), True),
    ("Man!!!", "Man", ("Man", "Woman"), True),
    ("man man man", "Man", ("Man", "Woman"), True),
    ("manly", "Man", ("Man", "Woman"), False),
    ("Men", "Man", ("Man", "Woman"), False),
    ("Dogs", "Dog", ("Dog", "Cat"), False),
    # prefixes and lead-ins, uncut
    ("(B) Woman", "Woman", ("Man", "Woman"), True),
    ("(A) dog", "dog", ("dog", "a cat"), False),
    ("B. a cat", "a cat", ("dog", "a cat"), True),
    ("The answer is dog.", "dog", ("dog", "the cat"), False),
    ("The answer is dog.", "dog", ("dog", "cat"), True),
    ("B", "a cat", ("dog", "a cat"), False),
    ("A", "A", ("A", "B", "C"), True),
    ("A or B", "A", ("A", "B", "C"), False),
    # hyphens, underscores, apostrophes, signs
    ("mid tempo", "mid-tempo", ("mid-tempo", "fast"), True),
    ("mid_tempo", "mid-tempo", ("mid-tempo", "fast"), False),
    ("midtempo", "mid-tempo", ("mid-tempo", "fast"), False),
    ("D:maj/1", "D#:maj/1", ("D#:maj/1", "E:min"), True),
    ("it’s", "it's", ("it's", "no"), True),
    ("its", "it's", ("it's", "no"), False),
    ("10:30", "10.30", ("10.30", "11.30"), True),
    ("30 10", "10:30", ("10:30", "11:30"), True),
    ("11:30 10", "10:30", ("10:30", "11:30"), False),
    # Unicode
    ("cafe\u0301", "caf\u00e9", ("caf\u00e9", "bar"), False),
    ("CAFÉ", "café", ("café", "bar"), True),
    ("是的", "是的", ("是的", "不是"), True),
    ("答案是是的", "是的", ("是的", "不是"), False),
    ("答案 是的", "是的", ("是的", "不是"), True),
    ("👨‍👩‍👧", "👨‍👩‍👧", ("👨‍👩‍👧", "dog"), False),
    ("20°", "20°", ("20°", "30°"), True),
    ("Ｍａｎ", "Man", ("Man", "Woman"), False),
    # empty
    ("", "Man", ("Man", "Woman"), False),
    ("...", "Man", ("Man", "Woman"), False),
    (" \n\t", "Man", ("Man", "Woman"), False),
    # duplicated choices, choices inside one another, empty choices
    ("Lake", "Lake", ("Lake", "Sea", "lake!"), True),
    ("guitar", "guitar", ("guitar", "guitar and drums"), True),
    ("guitar and drums", "guitar", ("guitar", "guitar and drums"), False),
    ("guitar", "guitar and drums", ("guitar", "guitar and drums"), False),
    ("guitar and drums", "guitar and drums", ("guitar", "guitar and drums"), True),
    ("guitar piano", "guitar", ("guitar", "guitar and drums"), True),
    ("Man", "Man", ("Man", "", "Woman"), True),
    ("Man Woman", "Man", ("Man", "", "Woman"), False),
    ("anything", "", ("", "Man"), True),
    ("Man", "", ("", "Man"), False),
    # gold not among the choices
    ("Child", "Child", ("Man", "Woman"), True),
    # 2 to 8 choices
    *[("one", "one", ("one", "two", "three", "four", "five", "six", "seven", "eight")[:n], True) for n in range(2, 9)],
    *[
        ("one eight", "one", ("one", "two", "three", "four", "five", "six", "seven", "eight")[:n], n < 8)
        for n in range(2, 9)
    ],
]


@pytest.mark.parametrize(("prediction", "gold", "choices", "right"), OFFICIAL_CASES)
def test_official_rule_on_hand_made_cases(prediction: str, gold: str, choices: tuple[str, ...], right: bool) -> None:
    assert official_match(prediction, gold, choices) == right == official_reference(prediction, gold, list(choices))


LETTERED = ("(A) Man", "(B) Woman", "(C) A child")


@pytest.mark.parametrize(
    ("generated", "cut"),
    [("Woman", "(B) Woman"), ("(B) Woman", "(B) Woman"), ("B. Woman", "(B) Woman"), ("(A) Woman", "Woman"), ("B", "B"),
     ("The answer is Woman", "(B) Woman"), ("Somebody", "Somebody"), ("", "")],
)  # fmt: skip
def test_the_cut_names_a_lettered_choice_as_the_file_does(generated: str, cut: str) -> None:
    assert bare_answer(generated, LETTERED) == cut


def test_a_gold_letter_means_that_choices_text_to_the_official_rule() -> None:
    assert gold_text("B", LETTERED) == "(B) Woman"
    assert gold_text("B", ("A", "B")) == "B" and gold_text("Man", ("Man", "Woman")) == "Man"
