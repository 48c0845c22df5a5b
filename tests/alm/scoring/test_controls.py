from typing import NamedTuple

import numpy as np

from alm.scoring.controls import always, best_constant, chance, longest_choice


class Item(NamedTuple):
    choices: tuple[str, ...]
    answer: str


ITEMS = [
    Item(("dog", "cat"), "cat"),
    Item(("one", "three", "seven", "ten"), "three"),
    Item(("a", "b", "c", "d", "a rather long one"), "a rather long one"),
    Item(("x", "y ", "y", ""), "y"),  # the gold text stands twice
]


def test_chance_is_one_in_the_number_of_choices() -> None:
    assert chance(ITEMS).tolist() == [1 / 2, 1 / 4, 1 / 5, 1 / 4]


def test_constant_positions() -> None:
    assert always(ITEMS, 1).tolist() == [0, 0, 0, 0]
    assert always(ITEMS, 2).tolist() == [1, 1, 0, 1]
    assert always(ITEMS, 3).tolist() == [0, 0, 0, 1]  # where there is no third choice, the answer is wrong
    best = best_constant(ITEMS)
    assert best.position == 2 and best.scores.mean() == 0.75


def test_longest_choice_shares_ties() -> None:
    # dog | cat tie: half; three | seven tie: half; the long one; x | y | y tie, two of them right
    np.testing.assert_allclose(longest_choice(ITEMS), [1 / 2, 1 / 2, 1, 2 / 3])


def test_letters_and_blanks_do_not_count_as_length() -> None:
    assert longest_choice([Item(("(A) dogs", "(B) a   "), "(A) dogs")]).tolist() == [1]
