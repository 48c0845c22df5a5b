"""What the scripts share that let a checkpoint make sounds and then score them, or anybody's files. Importing it loads no torch."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.arguments import beside, option

if TYPE_CHECKING:
    from alm.data.example import Message
    from alm.scoring.item_log import Row
    from alm.scoring.synthesis import Request


@dataclass(kw_only=True)
class SynthesisArguments:
    """Their command line; a script adds what it reads, its metrics, and its own `output`."""

    model: str | None = option(None, "checkpoint that makes the sounds: a local folder or a Hub id")
    audio: str | None = option(None, "folder of any system's files, <id>.wav, to be scored instead")
    metrics: list[str] = field(default_factory=list, metadata={"help": "metrics of single sounds"})
    require: list[str] = field(default_factory=list, metadata={"help": "metrics whose absence is an error"})
    checkpoints: list[str] = field(
        default_factory=list, metadata={"help": "METRIC=PATH: a metric's model elsewhere than in its cache"}
    )
    output: str = option("runs/result.json", "result file")
    system: str | None = option(None, "name of the system in the result")
    limit: int | None = option(None, "only the first N of the list")
    resume: bool = option(False, "take over what an interrupted run of the same model, settings and code has made")
    dry_run: bool = option(False, "print the plan and stop; loads no model")
    codec: str | None = option(None, "codec instead of the one saved with the checkpoint; its fingerprint must agree")
    device: str = option("cpu", "cpu, cuda (of several processes each on its own GPU), cuda:1, …")
    batch_size: int = option(8, "sounds made together; changes them by rounding at most")
    temperature: float = option(0.8, "0: greedy")
    top_k: int = option(0, "0: all")
    top_p: float = option(0.95, "1: all")
    min_p: float = option(0.0, "0: all")
    seed: int = option(0, "each sound draws by this and its id")
    min_seconds: float = option(0.2, "shortest sound")
    max_seconds: float = option(30.0, "longest sound; one that reaches it was not ended by the model")

    def __post_init__(self) -> None:
        for name in ("limit", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}")
        if bad := [word for word in self.checkpoints if "=" not in word]:
            raise ValueError(f"--checkpoints takes METRIC=PATH, got {bad[0]}")

    def beside(self, ending: str) -> Path:
        """A file or folder beside the result, named after it."""
        return beside(self.output, ending)

    @property
    def paths(self) -> dict[str, str]:
        """`--checkpoints` by metric."""
        return dict(word.split("=", 1) for word in self.checkpoints)


def generate(
    args: SynthesisArguments,
    asked: "Sequence[Request]",
    prompt_id: str,
    unconditional: "Sequence[Message]",
    guidance_scale: float = 1.0,
) -> "tuple[dict[str, Row], Path, dict[str, Any]]":
    """Answers of `--model` to what is asked: their rows by id, the folder of their files `<id>.wav`, and what the manifest says.

    `prompt_id`, `unconditional` and `guidance_scale` as in `alm.scoring.synthesis.SynthesisSettings`.
    """
    from alm.checkpoint import load_checkpoint
    from alm.generation.sampling import Sampling
    from alm.scoring.manifest import code_version, resume_key
    from alm.scoring.processes import launched
    from alm.scoring.synthesis import SynthesisSettings, identity, synthesise

    sampling = Sampling(args.temperature, args.top_k, args.top_p, args.min_p)
    settings = SynthesisSettings(prompt_id, unconditional, sampling, args.min_seconds, args.max_seconds, guidance_scale)
    processes = launched()
    checkpoint = load_checkpoint(args.model or "", codec=args.codec, device=processes.device(args.device))
    decided_by = identity(checkpoint, settings)
    folder = args.beside(".audio")
    key = resume_key(**decided_by, code=code_version())
    with processes.open_log(args.beside(".outputs.jsonl"), key, args.resume) as log:
        if args.resume and processes.is_main:
            print(f"{len(log.rows)} sounds there, {log.foreign} of another run left aside", file=sys.stderr)
        rows = synthesise(checkpoint, asked, settings, log, folder, args.batch_size, processes)
    return rows, folder, {"model": args.model, **decided_by, "seed": args.seed, "batch_size": args.batch_size}
