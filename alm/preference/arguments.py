"""Flags of recipes/preference.py; light, so that `--help` appears at once."""

from dataclasses import dataclass, field
from typing import Any

from alm.arguments import ConfigFileError
from alm.training.arguments import MachineArguments, RunArguments

DPO, GRPO = "dpo", "grpo"
REWARDS = ("choice", "validity", "wer", "clap")
DEFAULTS: dict[str, Any] = {"save_steps": 500, "save_total_limit": 2, "report_to": "none"}


@dataclass(kw_only=True)
class PreferenceArguments(MachineArguments, RunArguments):
    """Flags of recipes/preference.py beside those of TRL's DPOConfig or GRPOConfig."""

    method: str = field(metadata={"help": "dpo (pairs) or grpo (rewards)", "choices": [DPO, GRPO]})
    data: str | None = field(default=None, metadata={"help": "JSON lines of pairs (dpo) or questions (grpo)"})
    held_out: str | None = field(
        default=None, metadata={"help": "file like --data, measured before and after training"}
    )
    audio: str | None = field(default=None, metadata={"help": "folder of the clips that MMAR's rows name"})
    max_length: int = field(
        default=2048, metadata={"help": "most tokens of prompt and answer (grpo: of the prompt); nothing is cut"}
    )
    rewards: list[str] = field(
        default_factory=list,
        metadata={"help": f"grpo: {', '.join(REWARDS)}; TRL's --reward_weights go with them"},
    )
    asr: str = field(
        default="openai/whisper-large-v3", metadata={"help": "recogniser of the reward wer: folder or Hub id"}
    )
    clap: str = field(
        default="laion/clap-htsat-unfused", metadata={"help": "CLAP of the reward clap: folder or Hub id"}
    )
    grammar: bool = field(default=True, metadata={"help": "grpo: draw only what the grammar allows"})
    min_seconds: float = field(default=0.2, metadata={"help": "grpo: least length of generated audio"})
    max_seconds: float = field(default=30.0, metadata={"help": "grpo: most length of generated audio"})

    def __post_init__(self) -> None:
        RunArguments.__post_init__(self)
        MachineArguments.__post_init__(self)
        if not self.data and not self.machine:
            raise ValueError("--data is missing: JSON lines of pairs (dpo) or questions (grpo)")
        if unknown := sorted(set(self.rewards) - set(REWARDS)):
            raise ValueError(f"--rewards {' '.join(unknown)}: accepted are {', '.join(REWARDS)}")
        if (self.method == GRPO) != bool(self.rewards):
            raise ValueError("--rewards go with --method grpo, which needs one or more")
        if not 0 <= self.min_seconds <= self.max_seconds:
            raise ValueError(
                f"--min_seconds {self.min_seconds:g} and --max_seconds {self.max_seconds:g} leave no length"
            )


def require_agreement(args: PreferenceArguments, training: Any, processes: int) -> None:
    """Raise `ConfigFileError` where the trainer's flags and ours do not go together: TRL would say so when all data are made."""
    if args.held_out is None and str(training.eval_strategy.value) != "no":
        raise ConfigFileError(f"--eval_strategy {training.eval_strategy.value} needs --held_out, which it measures")
    if args.method == DPO:
        return
    weights = training.reward_weights
    if weights is not None and len(weights) != len(args.rewards):
        raise ConfigFileError(
            f"--reward_weights are {len(weights)} and --rewards {len(args.rewards)}: give one for each"
        )
    asked, group = (
        training.per_device_eval_batch_size * processes,
        training.num_generations_eval or training.num_generations,
    )
    if args.held_out is not None and asked % group:
        raise ConfigFileError(
            f"--per_device_eval_batch_size {training.per_device_eval_batch_size} × {processes} processes is no multiple of the {group} "
            "turns that a question of --held_out gets (--num_generations_eval, else --num_generations)"
        )
