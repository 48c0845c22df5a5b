"""Two result files of the same items, compared item by item."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alm.data.example import DataError
from alm.scoring.results import Result, read_result
from alm.scoring.statistics import Difference, paired_bootstrap

Values = dict[str, dict[str, float]]
"""Score → item id → value."""


class Comparison(NamedTuple):
    """Difference of each score (the second result's less the first's), on the items that both have, and how many only one has."""

    differences: dict[str, Difference]
    detectable: dict[str, float]
    """Smallest difference that so many items would show (two-sided 5 %, power 80 %): 2.8 standard errors of the difference."""
    unpaired: int


def compare(first: str | Path, second: str | Path) -> Comparison:
    """Compare two result files by the rows of their items. Raises `DataError` where they are not of one benchmark and the same items."""
    results = [(read_result(path), Path(path)) for path in (first, second)]
    names = [result.benchmark for result, _ in results]
    if names[0] != names[1]:
        raise DataError(
            f"{first} is of {names[0]}, {second} of {names[1]}: only results of one benchmark can be compared"
        )
    a, b = (item_values(result, path) for result, path in results)
    differences, detectable = {}, {}
    for name in (name for name in a if name in b):
        ids = sorted(a[name].keys() & b[name].keys())
        if len(ids) < 2:
            continue
        later, earlier = (np.array([values[name][i] for i in ids]) for values in (b, a))
        differences[name] = paired_bootstrap(later, earlier)
        detectable[name] = 2.8 * float((later - earlier).std(ddof=1)) / len(ids) ** 0.5
    if not differences:
        raise DataError(f"{first} and {second} have no score of the same items in common")
    everywhere = [{i for values in side.values() for i in values} for side in (a, b)]
    return Comparison(differences, detectable, len(everywhere[0] ^ everywhere[1]))


def item_values(result: Result, path: Path) -> Values:
    """The scores of each item, read from the rows beside a result file. Raises `DataError`."""
    file = path.parent / result.items
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise DataError(f"{path}: the rows of its items cannot be read from {file} ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: not JSON lines ({error})") from error
    values: Values = {}
    for row in rows:
        for name, value in _scores(row).items():
            if value is not None:
                values.setdefault(name, {})[str(row["id"])] = float(value)
    return values


def _scores(row: dict[str, Any]) -> dict[str, Any]:
    """Scores of a row: right or wrong by each rule, or figures of a reconstruction with its word errors per word."""
    if "correct" in row:
        return dict(row["correct"])
    scores = dict(row.get("scores", {}))
    made = row.get("words", {}).get("made", {})
    if made.get("words"):
        scores["wer_macro"] = made["errors"] / made["words"]
    return scores
