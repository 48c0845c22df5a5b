"""A benchmark of questions as tasks of lm-evaluation-harness, which its stock `hf` model runs on the plain checkpoint."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from alm.adapters import is_adapter
from alm.checkpoint import load_processor
from alm.checkpoint_files import local_folder
from alm.data.example import DataError
from alm.scoring.choice_run import Benchmark, ChoiceArguments, settings_of
from alm.scoring.choice_settings import NO_AUDIO, SHUFFLED_AUDIO, LoopSettings
from alm.scoring.clips import Clips, inspect_clips, require_clips
from alm.scoring.controls import shuffled_clips
from alm.scoring.harness.folder import write_task
from alm.scoring.harness.rows import LETTER, RowWriter
from alm.scoring.item_log import Row
from alm.scoring.prompts import LETTER_PROMPT
from alm.scoring.systems.base import Refused

Heard = Mapping[str, Path | None]
"""Question id → the clip that goes with it; a question that is not in it is not asked."""


def export(benchmark: Benchmark, args: ChoiceArguments, output: str) -> None:
    """Write a task for each kind of score, with the clips and for each control, and print the command that runs them all.

    What cannot be asked stays in as wrong, and is left out of a control, as in our own run. Raises `DataError` for an adapter, for more
    than `--max_missing` of such questions, and for one whose text the harness would tokenise otherwise.
    """
    folder, settings = local_folder(args.model or ""), settings_of(benchmark, args)
    if is_adapter(folder):
        raise DataError(f"{args.model} is an adapter; the harness is to load a plain checkpoint: give the merged model")
    clips = inspect_clips(benchmark.paths, args.max_missing)
    writer = RowWriter(load_processor(folder, args.codec, args.device), settings, benchmark.rule)
    tag = re.sub(r"\W+", "_", benchmark.name.lower()).strip("_")
    told = {**benchmark.data, "limit": args.limit, **writer.ids.identity}
    for condition, heard in _conditions(benchmark, settings, clips).items():
        rows = _rows(benchmark, writer, condition, heard, args.max_missing)
        for kind, metrics in writer.metrics.items():
            metadata = {**told, "prompt_id": LETTER_PROMPT if kind == LETTER else settings.prompt}
            write_task(Path(output), tag, condition, kind, metrics, settings.max_new_tokens, rows[kind], metadata)
    print(
        f"{len(benchmark.questions)} questions in {output}; now run\n\n"
        f"lm_eval --model hf --model_args pretrained={args.model},softmax_dtype=float32 --include_path {output} --tasks {tag}"
    )


def _conditions(benchmark: Benchmark, settings: LoopSettings, clips: Clips) -> dict[str, Heard]:
    """What each question hears: its own clip, and by name of each control."""
    found: dict[str, Heard] = {"": benchmark.paths}
    if NO_AUDIO in settings.controls:
        found[NO_AUDIO] = dict.fromkeys(benchmark.paths)
    if SHUFFLED_AUDIO in settings.controls:
        partners = shuffled_clips(benchmark.paths, clips.seconds)
        found[SHUFFLED_AUDIO] = {item_id: benchmark.paths[other] for item_id, other in partners.items()}
    return {condition: heard for condition, heard in found.items() if heard}


def _rows(
    benchmark: Benchmark, writer: RowWriter, condition: str, heard: Heard, max_missing: float
) -> dict[str, list[Row]]:
    """The rows of each kind."""
    rows: dict[str, list[Row]] = {kind: [] for kind in writer.metrics}
    problems: dict[str, str] = {}
    asked = [item for item in benchmark.questions if item.id in heard]
    for item in tqdm(asked, desc=f"writing {condition or 'questions'}", unit="question"):
        found = writer.rows(item, heard[item.id])
        if isinstance(found, Refused):
            if condition:
                continue
            problems[item.id] = f"question {item.id}: {found.reason}"
            require_clips(problems, len(benchmark.questions), max_missing)
            found = writer.wrong(item, found.reason)
        for kind, row in found.items():
            rows[kind].append(row)
    for problem in problems.values():
        print(f"counted as wrong: {problem}", file=sys.stderr)
    return rows
