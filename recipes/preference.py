"""Preference training on plain tokens with TRL: DPO on chosen and rejected answers or utterances, GRPO with rewards.

    accelerate launch recipes/preference.py --method dpo --model runs/demo/model --tokens runs/demo/tokens --output_dir runs/demo/dpo \\
        --data pairs.jsonl --held_out pairs_held_out.jsonl
    accelerate launch recipes/preference.py --method grpo --model runs/demo/model --tokens runs/demo/tokens --output_dir runs/demo/grpo \\
        --data questions.jsonl --rewards choice validity

Pairs: {"prompt": TEXT or [messages], "chosen": TEXT, AUDIO ITEM or MESSAGE, "rejected": …}; an audio item is {"type": "audio", "path": …},
{…, "key": …} of the token store, or {…, "codes": …}. Questions: {"prompt", "answer", "choices"}, MMAR's rows, {"say": TEXT} or
{"sound": CAPTION}. An interrupted run goes on from its last checkpoint when the same command is given again, to the same weights
(with GRPO's --num_iterations or --steps_per_generation only where --save_steps does not part steps that share their turns, which TRL does
not keep). OUTPUT_DIR ends as a complete checkpoint, with --lora_rank merged, the adapter in OUTPUT_DIR/adapter.
"""

import argparse
import sys
from pathlib import Path

from alm.arguments import ConfigFileError, parse_with_trainer_arguments, run_main
from alm.preference.arguments import DEFAULTS, DPO, GRPO, PreferenceArguments
from alm.preference.run import PreferenceRun


def main(argv: list[str] | None = None) -> None:
    method = named_method(sys.argv[1:] if argv is None else argv)

    def trainer_arguments() -> type:
        from alm.preference.trainers import PairConfig, QuestionConfig

        return QuestionConfig if method == GRPO else PairConfig

    args, training = parse_with_trainer_arguments(PreferenceArguments, argv, __doc__, trainer_arguments, DEFAULTS)
    if args.method != method:
        raise ConfigFileError(
            f"--method {args.method} stands on the command line and not in --config: flags depend on it"
        )
    PreferenceRun(args, training, Path(__file__).name).start()


def named_method(argv: list[str]) -> str:
    """The method of a command line, whose other flags are those of its trainer."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    finder.add_argument("--method", default=DPO)
    method: str = finder.parse_known_args(argv)[0].method
    return method


if __name__ == "__main__":
    run_main(main)
