"""What multiple choice earns without listening: the controls that stand beside every accuracy.

On MMAU's test-mini "always the first option" earns 39.5 %, more than several published models; an accuracy without its controls
says little. Each control is a vector of expected item scores, so that it can be averaged over any group of items.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from alm.scoring.choices import bare_choices, gold_indices


class HasChoices(Protocol):
    """What a control needs to know of a question."""

    @property
    def choices(self) -> Sequence[str]:
        """The choices as the file gives them."""

    @property
    def answer(self) -> str:
        """The gold text."""


class ConstantPosition(NamedTuple):
    """The best fixed position (from 1) over the whole benchmark, and what it earns item by item `(items,)`."""

    position: int
    scores: NDArray[np.float64]


def chance(items: Sequence[HasChoices]) -> NDArray[np.float64]:
    """`1 / number of choices` of every item, empty and repeated choices counted as the file lists them `(items,)`."""
    return np.array([1 / len(item.choices) for item in items])


def always(items: Sequence[HasChoices], position: int) -> NDArray[np.float64]:
    """1 where the choice at `position` (from 1) is right, 0 where it is wrong or there is none `(items,)`."""
    return np.array([float(position - 1 in gold_indices(item.answer, item.choices)) for item in items])


def best_constant(items: Sequence[HasChoices]) -> ConstantPosition:
    """The position that, always answered, earns most on these items; the earlier one in a tie."""
    longest = max(len(item.choices) for item in items)
    options = [ConstantPosition(position, always(items, position)) for position in range(1, longest + 1)]
    return max(options, key=lambda option: option.scores.mean())


def longest_choice(items: Sequence[HasChoices]) -> NDArray[np.float64]:
    """Always answering the choice of most characters (outer blanks and option letters not counted) `(items,)`.

    Where several are longest, the expected score of picking one of them at random: the share of them that is right.
    """
    scores = []
    for item in items:
        lengths = [len(choice.strip()) for choice in bare_choices(item.choices)]
        longest = {index for index, length in enumerate(lengths) if length == max(lengths)}
        scores.append(len(longest & gold_indices(item.answer, item.choices)) / len(longest))
    return np.array(scores)


def shuffled_clips(paths: Mapping[str, Path], usable: Collection[str]) -> dict[str, str]:
    """Question id → the question whose clip it hears in the shuffled-audio control: never its own clip, and never at random.

    The clips stand in a ring, ordered by a digest of the first question about each, and every question gets the next `usable` clip:
    a derangement of the clips where all are usable, the same on every machine, whatever the order of the file. Empty where fewer
    than two clips are usable.
    """
    owner: dict[Path, str] = {}
    for item_id in sorted(paths):
        owner.setdefault(paths[item_id], item_id)
    ring = sorted(owner, key=lambda clip: hashlib.sha256(owner[clip].encode()).digest())
    following: dict[Path, Path] = {}
    after: Path | None = None
    for clip in [*ring, *ring][::-1]:  # twice round: the second time, the last clip knows the first
        if after is not None and after != clip:
            following[clip] = after
        if owner[clip] in usable:
            after = clip
    found = {item_id: owner[following[clip]] for item_id, clip in paths.items() if clip in following}
    return found if len({owner[clip] for clip in ring} & set(usable)) > 1 else {}
