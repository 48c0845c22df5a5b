from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alm.scoring.controls import always, best_constant, chance, longest_choice, shuffled_clips


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


QUESTIONS = st.dictionaries(
    st.text(min_size=1, max_size=3), st.sampled_from([Path(f"{n}.wav") for n in range(9)]), min_size=2
)


@given(QUESTIONS, st.data())
def test_shuffled_clips_are_other_readable_ones_and_each_is_heard_once(
    paths: dict[str, Path], data: st.DataObject
) -> None:
    bad = data.draw(st.sets(st.sampled_from(sorted(set(paths.values())))))
    usable = {name for name, clip in paths.items() if clip not in bad}
    found = shuffled_clips(paths, usable)
    good = {paths[name] for name in usable}
    if len(good) < 2:
        assert found == {}
        return
    assert found.keys() == paths.keys()
    heard = {clip: paths[found[name]] for name, clip in paths.items()}
    assert all(
        heard[paths[name]] == paths[found[name]] for name in paths
    )  # questions about a clip hear the same other one
    assert all(other != clip and other in good for clip, other in heard.items())
    if not bad:
        assert set(heard.values()) == set(heard)
    backwards = dict(reversed(list(paths.items())))
    assert shuffled_clips(backwards, usable) == found


def test_the_shuffle_is_the_same_on_every_machine() -> None:
    assert shuffled_clips({name: Path("folder") / name for name in "abcd"}, set("abcd")) == {
        "a": "d",
        "b": "a",
        "c": "b",
        "d": "c",
    }
