"""A task of lm-evaluation-harness as files: `NAME.yaml`, `NAME.jsonl`, and `utils.py` for all tasks of a folder, which can be moved."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alm.prompts import TURN_END
from alm.scoring.harness import rules, task
from alm.scoring.harness.rows import GENERATION
from alm.scoring.item_log import Row
from alm.scoring.results import write_lines_atomically, write_text_atomically

MODULE = "utils"


def write_task(
    folder: Path,
    tag: str,
    condition: str,
    kind: str,
    metrics: Sequence[str],
    max_new_tokens: int,
    rows: Sequence[Row],
    metadata: dict[str, Any],
) -> None:
    """Write the task `TAG_CONDITION_KIND` of `rows` as `alm.scoring.harness.rows` makes them; `tag` names all tasks of a benchmark."""
    name = "_".join(filter(None, (tag, condition, kind)))
    questions = f"{name}.jsonl"
    write_lines_atomically(folder / questions, rows)
    shutil.copyfile(task.__file__, folder / f"{MODULE}.py")
    configuration = {
        "task": name,
        "tag": tag,
        "custom_dataset": f"!function {MODULE}.{task.load.__name__}",
        "test_split": "test",
        "doc_to_text": "prompt",
        "num_fewshot": 0,
        **(_generation(max_new_tokens) if kind == GENERATION else _choices(kind)),
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics],
        "metadata": {"version": 1, "questions": questions, "condition": condition or "audio", **metadata},
    }
    # not yaml.dump, which cannot write the harness's tag !function; JSON is YAML
    lines = [
        f"{key}: {value if str(value).startswith('!function ') else json.dumps(value, ensure_ascii=False)}\n"
        for key, value in configuration.items()
    ]
    write_text_atomically(folder / f"{name}.yaml", "".join(lines))


def _generation(max_new_tokens: int) -> dict[str, Any]:
    return {
        "output_type": "generate_until",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": [TURN_END], "max_gen_toks": max_new_tokens, "do_sample": False},
        "process_results": f"!function {rules.__name__}.{rules.generation.__name__}",
    }


def _choices(kind: str) -> dict[str, Any]:
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": "continuations",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "process_results": f"!function {MODULE}.{kind}",
    }
