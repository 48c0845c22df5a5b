"""Figures of result files: held to the weights that are published, then as the card's tables and as the Hub's model index."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from alm.data.example import DataError
from alm.scoring.results import Result, read_result
from alm.scoring.statistics import Estimate

NOT_RUN = "not run"
KINDS = {
    "official": "the benchmark's own rule",
    "option": "strict option parser",
    "loglikelihood": "log-likelihood",
    "letter": "letter",
}


@dataclass
class Owner:
    """Whose figures may stand on the card.

    `codec` has the codec's fingerprint as `codec`, and the digest of its weights as `weights` where they could be read; `model` is
    the checkpoint's folder or the adapter's (None: a codec alone) and `vocabulary` its contract's hash.
    """

    codec: Mapping[str, Any]
    model: Path | None = None
    vocabulary: str | None = None
    _digests: dict[str, str] = field(default_factory=dict)

    def require_own(self, result: Result, path: str | Path) -> None:
        """Raise `DataError` unless `result` was measured on exactly what is published."""
        for name, theirs, ours in self._identities(result):
            if theirs != ours:
                measure = "score it with eval/*.py and publish that result, or leave this one out"
                raise DataError(
                    f"{path} was measured on another {name} ({theirs}) than is published ({ours}): {measure}"
                )

    def _identities(self, result: Result) -> Iterator[tuple[str, Any, Any]]:
        told = result.manifest
        if is_sound(result):
            yield "codec", told.get("codec"), self.codec["codec"]
            if self.codec.get("weights") is not None:
                yield "codec's weights", told.get("weights"), self.codec["weights"]
            return
        yield "vocabulary", told.get("vocabulary"), self.vocabulary
        if self.model is not None:
            dtype = (told.get("decoding") or {}).get("dtype", "torch.float32")
            yield "model's weights", told.get("weights"), self._weights(self.model, dtype.removeprefix("torch."))

    def _weights(self, folder: Path, dtype: str) -> str:
        """Digest of the weights in the type that they were scored in; loads the model."""
        import torch

        from alm.checkpoint import load_checkpoint
        from alm.scoring.manifest import weights_digest

        if dtype not in self._digests:
            model = load_checkpoint(folder, dtype=getattr(torch, dtype), check_codec=False).model
            self._digests[dtype] = weights_digest(model)
        return self._digests[dtype]


def read_own(paths: Sequence[str], owner: Owner) -> list[Result]:
    """Result files, each held to `owner`. Raises `DataError` for one that is missing, something else, or of other weights."""
    results = []
    for path in paths:
        results.append(read_result(path))
        owner.require_own(results[-1], path)
    return results


def is_sound(result: Result) -> bool:
    """Whether scores have units of their own (reconstruction) instead of being accuracies."""
    return "units" in result.manifest


def model_index(results: Iterable[Result]) -> list[EvalResult]:
    """Every score for the card's metadata: accuracies as fractions, named with items and digest of the file they belong to."""
    return [
        EvalResult(
            task_type="audio-to-audio" if is_sound(result) else "audio-text-to-text",
            dataset_type=re.sub(r"\W+", "-", result.benchmark.lower()),
            dataset_name=f"{result.benchmark} ({_told_items(result)})",
            dataset_revision=result.manifest.get("data_sha256"),
            metric_type=name if is_sound(result) else "accuracy",
            metric_name=name,
            metric_value=score.value,
        )
        for result in results
        for name, score in result.scores.items()
    ]


def tables(results: Sequence[Result]) -> str:
    """The card's section: a table per result, with intervals, and for every accuracy its controls."""
    return "\n\n".join(_sound(r) if is_sound(r) else _choices(r) for r in results) or "Nothing was evaluated."


def _choices(result: Result) -> str:
    controls = result.controls
    lines = [
        f"### {result.benchmark}: {_told_items(result)}",
        "",
        "| score | accuracy, % | 95 % interval | the same without audio, % | chance, % |",
        "|---|---|---|---|---|",
    ]
    for name, score in result.scores.items():
        label = f"{name} ({KINDS[name]})" if name in KINDS else name
        blind, chance = (_percent(controls.get(key)) for key in (f"no_audio_{name}", "chance"))
        interval = f"{100 * score.low:.1f} to {100 * score.high:.1f}"
        lines.append(f"| {label} | **{_percent(score)}** | {interval} | {blind} | {chance} |")
    lines += [
        "",
        f"Without listening: best constant position {_percent(controls.get('constant_position'))} %, longest choice "
        f"{_percent(controls.get('longest_choice'))} %. {_told_counts(result)}",
    ]
    return "\n".join([*lines, *_told_source(result)])


def _sound(result: Result) -> str:
    units: Mapping[str, str] = result.manifest["units"]
    lines = [
        f"### {result.benchmark}: {_told_items(result)}",
        "",
        "| score | unit | value | 95 % interval | the originals | clips |",
        "|---|---|---|---|---|---|",
    ]
    for name, score in result.scores.items():
        interval = "" if score.low == score.high else f"{score.low:.3f} to {score.high:.3f}"
        original = f"{result.controls[name].value:.3f}" if name in result.controls else ""
        clips = "" if name in ("codebook_use", "perplexity", "perplexity_share") else f"{score.n:,}"
        lines.append(f"| {name} | {units.get(name, '')} | {score.value:.3f} | {interval} | {original} | {clips} |")
    return "\n".join([*lines, "", _told_counts(result), *_told_source(result)])


def _told_items(result: Result) -> str:
    items = result.counts.get("items", next(iter(result.scores.values())).n if result.scores else 0)
    limit = result.manifest.get("limit")
    name = Path(str(result.manifest.get("data", ""))).name
    what = f"{items:,} {'clips' if is_sound(result) else f'items of {name}' if name else 'items'}"
    return f"{'the first ' if limit else ''}{what}"


def _told_counts(result: Result) -> str:
    counts = [f"{value:,} {name.replace('_', ' ')}" for name, value in result.counts.items() if name != "items"]
    absent = f" Not computed: {', '.join(result.unavailable)}." if result.unavailable else ""
    return f"Counted: {', '.join(counts)}.{absent}"


def _told_source(result: Result) -> list[str]:
    told, decoding = result.manifest, result.manifest.get("decoding") or {}
    parts = {
        "data SHA-256": (told.get("data_sha256") or "")[:16],
        "prompt": told.get("prompt_id"),
        "generation": decoding.get("generation"),
        "heard from": told.get("waveform"),
        "commit": told.get("commit"),
    }
    known = "; ".join(f"{name} {value}" for name, value in parts.items() if value)
    return ["", f"{known}."] if known else []


def _percent(score: Estimate | None) -> str:
    return NOT_RUN if score is None else f"{100 * score.value:.1f}"
