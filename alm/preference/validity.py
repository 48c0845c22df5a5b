"""Whether a generated turn obeys the grammar, and how much of it is a loop."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alm.generation.grammar import AudioGrammar, TurnState

MAX_PERIOD, MIN_REPEATS = 16, 8


def obeyed(ids: Sequence[int], grammar: AudioGrammar, table: Tensor) -> tuple[float, bool]:
    """The share of a turn's ids `(L,)` before the first that may not come there, and whether the turn ended by itself.

    `table` is the grammar's own, of `AudioGrammar.table`.
    It did where all may come, the last is the stop token, and no span was as long as it may be (its end was then not the model's).
    """
    stop = grammar.vocabulary.stop_id
    state = TurnState(grammar, torch.tensor([-1]), torch.tensor([0]))
    forced = False
    for place, token in enumerate(ids):
        if not 0 <= token < table.shape[1] or not table[state.phases(), token]:
            return place / len(ids), False
        if token == stop:
            return (place + 1) / len(ids), place + 1 == len(ids) and not forced
        forced = forced or bool(state.forced_end())
        state.advance(torch.tensor([token]))
    return 1.0, False


def loop_share(ids: Sequence[int], max_period: int = MAX_PERIOD, min_repeats: int = MIN_REPEATS) -> float:
    """Share of the ids `(L,)` in the longest stretch that says the same `max_period` or fewer ids `min_repeats` times or more, 0 to 1.

    A short rest of equal codes, as in silence, is no loop.
    """
    longest = 0
    for period in range(1, min(max_period, len(ids) // min_repeats) + 1):
        run = 0
        for place in range(period, len(ids)):
            run = run + 1 if ids[place] == ids[place - period] else 0
            if run >= period * (min_repeats - 1):
                longest = max(longest, run + period)
    return longest / len(ids) if ids else 0.0
