"""One run of a multiple-choice benchmark, from its command line to its `Result`; what MMAR's and MMAU's scripts share.

Importing it loads no torch: `--help`, `--dry_run` and stored answers are quick.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alm.data.example import DataError
from alm.prompts import MULTIPLE_CHOICE_PROMPT_ID, multiple_choice_prompt
from alm.scoring.item_log import ItemLog
from alm.scoring.manifest import resume_key, weights_digest
from alm.scoring.multiple_choice import Answer, Answers, Question, correct, summarise
from alm.scoring.predictions import read_predictions
from alm.scoring.results import Result


def option(default: Any, text: str) -> Any:
    """A field of a dataclass of arguments, with its help."""
    return field(default=default, metadata={"help": text})


@dataclass
class ChoiceArguments:
    """The command line of a multiple-choice benchmark."""

    model: str | None = option(None, "checkpoint to score: a local folder or a Hub id")
    predictions: str | None = option(
        None,
        "score stored answers instead: JSON list or JSON lines with id and prediction (or answer_prediction, model_output)",
    )
    data: str | None = option(
        None, "the benchmark's metadata file; without it, the Hub's copy if it is in the local cache"
    )
    audio: str | None = option(
        None, "folder of the clips; without it, audio paths are looked up from the folder of --data"
    )
    output: str = option(
        "runs/result.json", "result file; the rows of the items are written beside it as NAME.items.jsonl"
    )
    system: str | None = option(None, "name of the system in the result; without it, the name of the model or file")
    limit: int | None = option(None, "only the first N questions")
    resume: bool = option(
        False, "take over the rows that an interrupted run of the same model, data and code has written"
    )
    dry_run: bool = option(False, "print what would be done and exit; loads no model")
    codec: str | None = option(
        None, "codec to use instead of the one saved with the checkpoint; its fingerprint must agree"
    )
    device: str = option("cpu", "where the model runs: cpu, cuda, cuda:1, …")
    batch_size: int = option(8, "questions answered together; does not change the answers")
    max_new_tokens: int = option(128, "limit of a generated answer; answers that reach it are counted as truncated")
    max_missing: float = option(
        0.1, "share of clips that may be missing or unreadable (they count as wrong) before the run stops"
    )
    generation: bool = option(True, "score generated answers (official, option)")
    loglikelihood: bool = option(True, "score the log-likelihood of the choices")
    control: bool = option(True, "ask the same model the same questions without the audio, too")

    def __post_init__(self) -> None:
        if (self.model is None) == (self.predictions is None):
            raise ValueError("give either --model CHECKPOINT or --predictions FILE")
        if self.model and not (self.generation or self.loglikelihood):
            raise ValueError("--no_generation and --no_loglikelihood together leave nothing to score")
        for name in ("limit", "batch_size", "max_new_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}")
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"--max_missing is a share from 0 to 1, got {self.max_missing}")

    @property
    def items_path(self) -> Path:
        """Where the rows of the items go, beside the result."""
        output = Path(self.output)  # not with_suffix: of "qwen3-0.6b" it would leave "qwen3-0"
        return output.with_name(output.name.removesuffix(".json") + ".items.jsonl")


def plan(args: ChoiceArguments, questions: Sequence[Question], paths: Mapping[str, Path]) -> str:
    """What a run would do, for `--dry_run`."""
    there = sum(path.is_file() for path in paths.values())
    chosen = {
        "official and option by greedy generation": args.generation,
        "log-likelihood of the choices": args.loglikelihood,
        "the same without the audio": args.control,
    }
    scores = ", ".join(name for name, wanted in chosen.items() if wanted)
    work = (
        f"model {args.model} on {args.device}, batches of {args.batch_size}: {scores}"
        if args.model
        else f"stored answers of {args.predictions}: official and option"
    )
    prompt = multiple_choice_prompt(questions[0].question, questions[0].choices)
    return (
        f"{len(questions)} questions, {there} of {len(paths)} clips found\n{work}\nresult to {args.output}\n"
        f"first prompt ({MULTIPLE_CHOICE_PROMPT_ID}):\n\n{prompt}"
    )


def score_predictions(
    benchmark: str,
    args: ChoiceArguments,
    questions: Sequence[Question],
    paths: Mapping[str, Path],
    manifest: dict[str, Any],
) -> Result:
    """Score `--predictions` as they are, without any cut; the clips at `paths` are not needed.

    Raises `DataError` where no answer belongs to a question.
    """
    path, names = Path(args.predictions or ""), ["official", "option"]
    if path.resolve() == args.items_path.resolve():
        raise DataError(f"{path} would be replaced by the rows of this run; choose another --output")
    answers = read_predictions(path)
    known = {item.id for item in questions}
    if not known & answers.keys():
        raise DataError(
            f"{path}: none of its {len(answers)} answers belongs to a question of {manifest['data']}; check --data"
        )
    rows = [
        {"id": item.id, "prediction": answer.prediction, "correct": correct(item, answer, names)}
        for item in questions
        for answer in [answers.get(item.id, Answer())]
    ]
    source = {"predictions": path.name, "predictions_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    with ItemLog(args.items_path, resume_key(**source, data_sha256=manifest["data_sha256"])) as log:
        log.append(rows)
    return summarise(
        benchmark,
        args.system or path.stem,
        questions,
        Answers(answers),
        names,
        manifest | source | {"prompt_id": None, "decoding": None},
        unavailable={"loglikelihood": "stored answers have none; score with --model"},
        counts={"unknown_ids": len(answers.keys() - known)},
        items=args.items_path.name,
    )


def score_model(
    benchmark: str,
    args: ChoiceArguments,
    questions: Sequence[Question],
    paths: Mapping[str, Path],
    manifest: dict[str, Any],
) -> Result:
    """Run `--model` over the questions; `paths` are the clips by question id.

    Raises `DataError` when more than `--max_missing` of the clips are missing or unreadable, before the model is loaded where
    their headers tell.
    """
    from alm.scoring.choice_loop import ChoiceLoop, LoopSettings
    from alm.scoring.clips import inspect_clips

    settings = LoopSettings(args.generation, args.loglikelihood, args.control, args.max_new_tokens, args.batch_size)
    clips = inspect_clips(paths, args.max_missing)

    from alm.checkpoint import load_checkpoint

    model, processor = load_checkpoint(args.model or "", codec=args.codec, device=args.device)
    decided_by = {
        "weights": weights_digest(model),
        "vocabulary": processor.vocabulary.hash,
        "data_sha256": manifest["data_sha256"],
        "prompt_id": MULTIPLE_CHOICE_PROMPT_ID,
        "decoding": settings.decoding() | {"dtype": str(model.dtype)},
        "code": manifest["code"],
    }
    key = resume_key(**decided_by)
    with ItemLog(args.items_path, key, args.resume, is_done=lambda row: row["missing"] is None) as log:
        if args.resume:
            print(f"{len(log.rows)} rows taken over, {log.foreign} of another run left aside", file=sys.stderr)
        loop = ChoiceLoop(model, processor, paths, settings)
        answers = loop.run(questions, clips, log, args.max_missing)
    for problem in loop.problems.values():
        print(f"counted as wrong: {problem}", file=sys.stderr)
    return summarise(
        benchmark,
        args.system or Path(args.model or "").name,
        questions,
        answers,
        settings.scores(),
        {**manifest, "model": args.model, "codec": processor.vocabulary.codec_fingerprint, **decided_by}
        | {"resume_key": key, "batch_size": args.batch_size},
        unavailable=settings.unavailable(),
        items=args.items_path.name,
    )
