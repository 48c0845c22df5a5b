"""Flags of recipes/preference.py; light, so that `--help` appears at once."""

from dataclasses import dataclass, field
from typing import Any

DPO, GRPO = "dpo", "grpo"
REWARDS = ("choice", "validity", "wer", "clap")
DEFAULTS: dict[str, Any] = {"save_steps": 500, "save_total_limit": 2, "report_to": "none"}


@dataclass
class PreferenceArguments:
    """Flags of recipes/preference.py beside those of TRL's DPOConfig or GRPOConfig."""

    method: str = field(metadata={"help": "dpo (pairs) or grpo (rewards)", "choices": [DPO, GRPO]})
    model: str = field(metadata={"help": "checkpoint with an audio vocabulary: folder or Hub id; also DPO's reference"})
    data: str = field(metadata={"help": "JSON lines of pairs (dpo) or questions (grpo)"})
    output_dir: str = field(metadata={"help": "folder of the trained model, its checkpoints and its log"})
    tokens: str | None = field(default=None, metadata={"help": "token store of recipes/tokenize_corpus.py"})
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
    lora_rank: int = field(default=0, metadata={"help": "rank of LoRA; 0: full fine-tuning"})
    lora_alpha: int | None = field(default=None, metadata={"help": "LoRA's alpha; twice the rank unless given"})
    seed: int = field(default=42, metadata={"help": "seed of the order of data and of what is drawn"})
    resume_from_checkpoint: str = field(
        default="auto", metadata={"help": "auto (the last checkpoint of OUTPUT_DIR if there is one), true, or a folder"}
    )
    overwrite_output: bool = field(default=False, metadata={"help": "start afresh where OUTPUT_DIR holds a run"})
    dry_run: bool = field(default=False, metadata={"help": "read the data, print what there is, and exit"})

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.rewards) - set(REWARDS)):
            raise ValueError(f"--rewards {' '.join(unknown)}: accepted are {', '.join(REWARDS)}")
        if (self.method == GRPO) != bool(self.rewards):
            raise ValueError("--rewards go with --method grpo, which needs one or more")
