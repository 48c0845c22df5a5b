"""Print stored results as tables.

python eval/show_result.py --results runs/demo/mmar.json runs/demo/reconstruction.json
"""

from dataclasses import dataclass, field

from alm.arguments import parse_arguments, run_main
from alm.scoring.results import read_result, render_table
from alm.scoring.sound.table import render


@dataclass
class ShowArguments:
    results: list[str] = field(metadata={"help": "result files of eval/*.py"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(ShowArguments, argv, description=__doc__)
    results = map(read_result, args.results)
    # metrics of sound have units of their own, accuracies are shares
    print("\n\n".join(render(r) if "units" in r.manifest else render_table(r) for r in results))


if __name__ == "__main__":
    run_main(main)
