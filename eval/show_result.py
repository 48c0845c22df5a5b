"""Print stored results as tables.

python eval/show_result.py --results runs/demo/mmar.json runs/demo/reconstruction.json
"""

from dataclasses import dataclass, field

from alm.arguments import parse_arguments, run_main
from alm.scoring.results import read_result, render_table


@dataclass
class ShowArguments:
    results: list[str] = field(metadata={"help": "result files of eval/*.py"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(ShowArguments, argv, description=__doc__)
    print("\n\n".join(render_table(read_result(path)) for path in args.results))


if __name__ == "__main__":
    run_main(main)
