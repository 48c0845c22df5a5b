"""Two result files of the same items, compared item by item."""

import json
from collections.abc import Collection, Mapping
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
    differing: list[str]
    """What else than the system differs: data, clips, the models that measure."""


def compare(first: str | Path, second: str | Path, allow_differing: bool = False) -> Comparison:
    """Compare two result files by the rows of their items.

    Raises `DataError` where they are not of one benchmark and the same items, where the rows beside a result are another run's, and,
    without `allow_differing`, where the data, the clips or what measured them differ.
    """
    results = [(read_result(path), Path(path)) for path in (first, second)]
    names = [result.benchmark for result, _ in results]
    if names[0] != names[1]:
        raise DataError(
            f"{first} is of {names[0]}, {second} of {names[1]}: only results of one benchmark can be compared"
        )
    (a, heard_a), (b, heard_b) = (item_values(result, path) for result, path in results)
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
    differing = _differing(results[0][0].manifest, results[1][0].manifest, set(differences))
    if others := sum(heard_a[i] != heard_b[i] for i in heard_a.keys() & heard_b.keys()):
        differing.append(f"the audio of {others} items")
    if differing and not allow_differing:
        raise DataError(
            f"{first} and {second} differ in more than the system: {'; '.join(differing)}. Run one of them again, or compare all "
            "the same with --allow_differing"
        )
    everywhere = [{i for values in side.values() for i in values} for side in (a, b)]
    return Comparison(differences, detectable, len(everywhere[0] ^ everywhere[1]), differing)


def _differing(a: Mapping[str, Any], b: Mapping[str, Any], scores: Collection[str]) -> list[str]:
    """What of two manifests must be the same for a difference to be the system's."""
    told = [(name, a.get(name), b.get(name)) for name in ("data_sha256",)]
    labels = [manifest.get("metrics") or {} for manifest in (a, b)]
    told += [(name, *(side[name] for side in labels)) for name in labels[0] if name in labels[1] and name != "asr"]
    found = [f"{name} {one} and {other}" for name, one, other in told if one and other and one != other]
    recognisers = [side.get("asr") for side in labels]
    if (
        "wer_macro" in scores and recognisers[0] != recognisers[1]
    ):  # none: stored transcripts, of whose recogniser nothing is known
        found.append(" and ".join(f"asr {name or 'unknown (stored transcripts)'}" for name in recognisers))
    return found


def item_values(result: Result, path: Path) -> tuple[Values, dict[str, str]]:
    """The scores of each item, and digests of the clips that were heard (where told), from the rows beside a result file.

    Raises `DataError`, also where the rows do not give the scores that the result states.
    """
    file = path.parent / result.items
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise DataError(f"{path}: the rows of its items cannot be read from {file} ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: not JSON lines ({error})") from error
    values: Values = {}
    heard = {str(row["id"]): row["clips"][0] for row in rows if row.get("clips")}
    for row in rows:
        for name, value in _scores(row).items():
            if value is not None:
                values.setdefault(name, {})[str(row["id"])] = float(value)
    for name, stated in result.scores.items():
        found = list(values.get(name, {}).values())
        if found and abs(sum(found) / len(found) - stated.value) > 1e-6:
            raise DataError(
                f"{path}: its {name} is {stated.value:.6f}, but {sum(found) / len(found):.6f} by the {len(found)} rows in {file}, which "
                "are of another run; run it again"
            )
    return values, heard


def _scores(row: dict[str, Any]) -> dict[str, Any]:
    """Scores of a row: right or wrong by each rule, or figures of a reconstruction with its word errors per word."""
    if "correct" in row:
        return dict(row["correct"])
    scores = dict(row.get("scores", {}))
    made = row.get("words", {}).get("made", {})
    if made.get("words"):
        scores["wer_macro"] = made["errors"] / made["words"]
    return scores
