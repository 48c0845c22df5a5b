"""One run of a benchmark of questions, from its command line to its `Result`; what MMAR, MMAU, ClothoAQA and MusicQA share.

Importing it loads no torch: `--help`, `--dry_run` and stored answers are quick.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from alm.arguments import beside, option, require_output
from alm.data.example import DataError
from alm.scoring.answers import Answer, Answers, Question, Rule
from alm.scoring.choice_settings import CONTROLS, SHUFFLED_AUDIO, LoopSettings
from alm.scoring.choices import bare_choices
from alm.scoring.controls import shuffled_clips
from alm.scoring.item_log import ItemLog
from alm.scoring.manifest import environment, resume_key
from alm.scoring.predictions import read_predictions
from alm.scoring.processes import launched
from alm.scoring.prompts import PROMPTS
from alm.scoring.results import Result, render_table, write_result
from alm.scoring.summary import summarise
from alm.scoring.systems.arguments import SystemArguments
from alm.scoring.systems.base import ChoiceScorer, System


@dataclass
class ChoiceArguments(SystemArguments):
    """The command line of a benchmark of questions."""

    predictions: str | None = option(
        None,
        "score stored answers instead: JSON list or JSON lines with id and prediction (or answer_prediction, model_output, "
        "model_prediction)",
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
    batch_size: int = option(
        8, "questions answered together (of a server: asked at a time); does not change the answers"
    )
    prompt: str = option("mmar-authors", f"how a question is put, by name: {', '.join(PROMPTS)}")
    max_new_tokens: int = option(128, "limit of a generated answer; answers that reach it are counted as truncated")
    max_missing: float = option(
        0.1, "share of clips that may be missing or unreadable (they count as wrong) before the run stops"
    )
    generation: bool = option(True, "score generated answers by the benchmark's rule and ours")
    loglikelihood: bool = option(True, "score the log-likelihood of the choices, summed and per token")
    letter: bool = option(True, "score the likelihood of the choices' letters, asked with lettered choices")
    controls: list[str] = field(
        default_factory=lambda: list(CONTROLS),
        metadata={"help": "ask the same without the clip, and with another's: no_audio, shuffled_audio; or none"},
    )
    lm_eval: str | None = option(
        None, "write the questions as tasks of lm-evaluation-harness into this folder instead of scoring them here"
    )
    permutations: Literal["none", "cyclic"] = option(
        "none", "cyclic: ask each question with every rotation of its choices, too; mean, and share right under all"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(given is not None for given in (self.model, self.server, self.predictions)) != 1:
            raise ValueError("give one of --model MODEL, --server ADDRESS and --predictions FILE")
        if self.lm_eval and (self.model is None or self.permutations != "none"):
            raise ValueError(
                "--lm_eval goes with --model (whose tokens the tasks are written in) and without --permutations"
            )
        if not self.predictions and not (self.generation or self.loglikelihood or self.letter):
            raise ValueError("--no_generation, --no_loglikelihood and --no_letter together leave nothing to score")
        if self.prompt not in PROMPTS:
            raise ValueError(f"--prompt takes one of {', '.join(PROMPTS)}, got {self.prompt!r}")
        self.controls = [] if self.controls == ["none"] else self.controls
        if unknown := [name for name in self.controls if name not in CONTROLS]:
            raise ValueError(f"--controls takes {', '.join(CONTROLS)}, or none alone; got {', '.join(unknown)}")
        for name in ("limit", "batch_size", "max_new_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}")
        require_output(self.output, self.data, self.predictions)
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"--max_missing is a share from 0 to 1, got {self.max_missing}")

    @property
    def items_path(self) -> Path:
        """Where the rows of the items go, beside the result."""
        return beside(self.output, ".items.jsonl")


@dataclass(frozen=True)
class Benchmark:
    """Questions, their clips by id, the rule that scores them, and what the manifest tells of the data (`data_sha256` at least)."""

    name: str
    questions: Sequence[Question]
    paths: Mapping[str, Path]
    rule: Rule
    data: Mapping[str, Any]


def run(benchmark: Benchmark, args: ChoiceArguments, command: Sequence[str]) -> Result | None:
    """Do what the command line says: the plan, tasks of another harness, or a `Result`, written and printed.

    None where there is no result, and of a process that is not the main one of its launch.
    """
    if args.dry_run:
        if launched().is_main:
            print(plan(benchmark, args))
        return None
    if args.lm_eval:
        from alm.scoring.harness.export import export

        if launched().is_main:
            export(benchmark, args, args.lm_eval)
        return None
    result = score(benchmark, args, command)
    if result is None:
        return None
    write_result(result, args.output)
    print(render_table(result))
    print(f"\nresult: {args.output}; rows of the items: {args.items_path}")
    return result


def plan(benchmark: Benchmark, args: ChoiceArguments) -> str:
    """What a run would do, for `--dry_run`."""
    there = sum(path.is_file() for path in benchmark.paths.values())
    settings, first = settings_of(benchmark, args), benchmark.questions[0]
    scores = ", ".join(benchmark.rule.generated if args.predictions else settings.scores(benchmark.rule))
    beside = f"; controls {', '.join(settings.controls) or 'none'}; permutations {args.permutations}"
    work = (
        f"stored answers of {args.predictions}: {scores}"
        if args.predictions
        else f"model {args.system_told}, batches of {args.batch_size}: {scores}{beside}"
    )
    goal = f"tasks to {args.lm_eval}" if args.lm_eval else f"result to {args.output}"
    prompt = PROMPTS[settings.prompt](first.question, bare_choices(first.choices))
    return (
        f"{len(benchmark.questions)} questions, {there} of {len(benchmark.paths)} clips found\n{work}\n{goal}\n"
        f"first prompt ({settings.prompt}):\n\n{prompt}"
    )


def settings_of(benchmark: Benchmark, args: ChoiceArguments) -> LoopSettings:
    """The loop's settings; of open questions, no choice is scored or rotated. Raises `DataError` where that leaves nothing."""
    closed = all(item.choices for item in benchmark.questions)
    if not closed and not args.generation:
        raise DataError(
            f"{benchmark.name}: open questions can only be answered, and --no_generation leaves nothing to score"
        )
    return LoopSettings(
        prompt=args.prompt,
        generation=args.generation,
        loglikelihood=args.loglikelihood and closed,
        letter=args.letter and closed,
        controls=tuple(args.controls),
        cyclic=args.permutations == "cyclic" and closed,
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
    )


def score(benchmark: Benchmark, args: ChoiceArguments, command: Sequence[str]) -> Result | None:
    """The `Result` of `--predictions`, `--model` or `--server`; None of a process that is not the main one of its launch."""
    if args.predictions:
        return score_predictions(benchmark, args, environment(command)) if launched().is_main else None
    from alm.scoring.clips import inspect_clips

    clips = inspect_clips(benchmark.paths, args.max_missing)  # before a model is loaded
    return score_system(benchmark, args, environment(command), args.load_system(), clips)


def score_predictions(benchmark: Benchmark, args: ChoiceArguments, told: Mapping[str, Any]) -> Result:
    """Score `--predictions` as they are, without any cut; the clips are not needed.

    Raises `DataError` where no answer belongs to a question.
    """
    path, names, questions = Path(args.predictions or ""), list(benchmark.rule.generated), benchmark.questions
    if path.resolve() == args.items_path.resolve():
        raise DataError(f"{path} would be replaced by the rows of this run; choose another --output")
    answers = read_predictions(path)
    known = {item.id for item in questions}
    if not known & answers.keys():
        raise DataError(
            f"{path}: none of its {len(answers)} answers belongs to a question of {benchmark.data.get('data')}; check --data"
        )
    given = [answers.get(item.id, Answer()) for item in questions]
    rows = [
        {"id": item.id, "prediction": answer.prediction, "correct": verdict}
        for item, answer, verdict in zip(
            questions, given, benchmark.rule.verdicts(questions, given, names), strict=True
        )
    ]
    source = {"predictions": path.name, "predictions_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    with ItemLog(args.items_path, resume_key(**source, **benchmark.data)) as log:
        log.append(rows)
    return summarise(
        benchmark.name,
        args.system or path.stem,
        questions,
        Answers(answers),
        benchmark.rule,
        names,
        {**benchmark.data, "limit": args.limit, **told, **source, "prompt_id": None, "decoding": None},
        unavailable=dict.fromkeys(("loglikelihood", "letter"), "stored answers have none; score with --model"),
        counts={"unknown_ids": len(answers.keys() - known)},
        items=args.items_path.name,
    )


def score_system(
    benchmark: Benchmark, args: ChoiceArguments, told: Mapping[str, Any], system: System, clips: Any
) -> Result | None:
    """Put the questions to a system, its share on each process; `clips` is what `alm.scoring.clips.inspect_clips` found.

    Raises `DataError` when more than `--max_missing` of the clips cannot be read, or the system gives none of the wanted scores.
    """
    from alm.scoring.choice_loop import ChoiceLoop

    settings, rule = settings_of(benchmark, args), benchmark.rule
    unavailable = settings.unavailable(rule)
    if not isinstance(system, ChoiceScorer):
        if not settings.generation:
            raise DataError(f"{system.label} only answers, and --no_generation leaves nothing to score")
        settings = replace(settings, loglikelihood=False, letter=False)
        unavailable |= dict.fromkeys(
            ("loglikelihood", "letter"), f"{system.label} gives no likelihoods of given answers"
        )
    partners = shuffled_clips(benchmark.paths, clips.seconds) if SHUFFLED_AUDIO in settings.controls else {}
    if SHUFFLED_AUDIO in settings.controls and not partners:
        unavailable[SHUFFLED_AUDIO] = "needs two clips that can be read"
    identity = dict(system.identity)
    decided_by = {
        **identity,
        **benchmark.data,
        "prompt_id": settings.prompt,
        "decoding": settings.decoding(),
        "code": told["code"],
    }
    key = resume_key(**decided_by)

    processes = launched()
    loop = ChoiceLoop(system, benchmark.paths, settings, rule, partners, processes, clips.digests)

    def is_done(row: dict[str, Any]) -> bool:
        of = (row["shuffled_with"], row["clips"])
        return row["missing"] is None and of == (partners.get(row["id"]), loop.heard(row["id"]))

    with processes.open_log(args.items_path, key, args.resume, is_done) as log:
        if args.resume and processes.is_main:
            print(f"{len(log.rows)} rows taken over, {log.foreign} of another run left aside", file=sys.stderr)
        answers = loop.run(benchmark.questions, clips, log, args.max_missing)
    if not processes.is_main:
        return None
    for problem in loop.problems.values():
        print(f"counted as wrong: {problem}", file=sys.stderr)
    return summarise(
        benchmark.name,
        args.system or system.label,
        benchmark.questions,
        answers,
        rule,
        settings.scores(rule),
        {**told, "limit": args.limit, "model": args.model or args.server_model, **decided_by}
        | {"resume_key": key, "batch_size": args.batch_size},
        unavailable=unavailable,
        items=args.items_path.name,
    )
