"""Compare two result files item by item: difference, 95 % interval, p-value, smallest difference that could be seen.

    python eval/compare.py --results runs/a.json runs/b.json

Differences are those of the second result less the first's, over the items that both have. Results on another release of the data, on
other clips, or measured by other checkpoints are refused: what differs would not be the system alone.
"""

from dataclasses import dataclass, field

from alm.arguments import option, parse_arguments, run_main
from alm.data.example import DataError


@dataclass
class CompareArguments:
    results: list[str] = field(metadata={"help": "two result files of eval/*.py"})
    allow_differing: bool = option(
        False, "compare also where data, clips or metrics' checkpoints differ, and say which"
    )

    def __post_init__(self) -> None:
        if len(self.results) != 2:
            raise DataError(f"--results takes two files, got {len(self.results)}")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(CompareArguments, argv, description=__doc__)
    from alm.scoring.comparison import compare

    found = compare(*args.results, allow_differing=args.allow_differing)
    for what in found.differing:
        print(f"not the system alone: {what}")
    print(f"{args.results[1]} less {args.results[0]}; {found.unpaired} items are in one of them only\n")
    print(f"{'score':<20}{'difference':>11}  {'95 % interval':<20}{'p':>8}{'n':>7}{'detectable':>12}")
    for name, d in found.differences.items():
        interval = f"[{d.low:+.4f}, {d.high:+.4f}]"
        print(f"{name:<20}{d.value:>+11.4f}  {interval:<20}{d.p_value:>8.4f}{d.n:>7}{found.detectable[name]:>12.4f}")


if __name__ == "__main__":
    run_main(main)
