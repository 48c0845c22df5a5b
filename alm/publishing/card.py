"""The model card: metadata by the Hub's specification, then what a reader must know before using the weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from alm.publishing import training
from alm.publishing.figures import is_sound, model_index, tables
from alm.publishing.snippets import Snippet
from alm.scoring.results import Result
from alm.vocabulary import AudioVocabulary
from codec.base import Codec

TOOL = "entangle-alm"
NOT_STATED = "not stated"


@dataclass(frozen=True)
class About:
    """What only the publisher can say. `here` is how examples load the folder: its Hub id, or the folder itself."""

    repo: str | None = None
    license: str | None = None
    base_model: str | None = None
    datasets: list[str] = field(default_factory=list)
    language: list[str] = field(default_factory=list)

    @property
    def here(self) -> str:
        """The Hub id, or the current folder where there is none."""
        return self.repo or "."

    @property
    def title(self) -> str | None:
        """The Hub id's second part."""
        return self.repo.partition("/")[2] if self.repo else None


def metadata(about: About, results: Sequence[Result], title: str, **fixed: Any) -> ModelCardData:
    """The card's YAML; what is not known is left out rather than guessed."""
    return ModelCardData(
        model_name=title,
        license=about.license,
        base_model=about.base_model,
        datasets=about.datasets or None,
        language=about.language or None,
        eval_results=model_index(results) or None,
        **fixed,
    )


def model_card(
    about: About,
    vocabulary: AudioVocabulary,
    manifest: dict[str, Any] | None,
    results: Sequence[Result],
    snippets: Sequence[Snippet],
    *,
    adapter: bool,
    codec_source: str,
) -> ModelCard:
    """The card of a language model or of a LoRA adapter. `codec_source` says where its codec is."""
    title = about.title or "Audio language model"
    what = (
        f"A LoRA adapter for `{about.base_model}`, a Qwen3 whose vocabulary holds the tokens of an audio codec."
        if adapter
        else "A plain `Qwen3ForCausalLM` whose vocabulary holds the tokens of an audio codec: sound is tokens to it, as text is. "
        "Stock Transformers loads it; there is no code in this folder, and all weights are safetensors."
    )
    data = metadata(
        about,
        results,
        title,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="audio-text-to-text",
        tags=["audio", "audio-language-model", "qwen3", TOOL, *(["lora"] if adapter else [])],
        **({"base_model_relation": "adapter"} if adapter else {}),
    )
    sections = {
        "How to use": "\n\n".join(map(str, snippets)),
        "Vocabulary contract": _contract(vocabulary),
        "Codec": _codec(vocabulary, codec_source),
        "Training": training.describe(manifest),
        "Evaluation": tables(results),
        "Limits": _limits(results),
        "Licences": _licences(about),
    }
    return _assemble(data, title, what, sections)


def codec_card(
    about: About, codec: Codec, manifest: dict[str, Any] | None, results: Sequence[Result], snippets: Sequence[Snippet]
) -> ModelCard:
    """The card of a codec alone."""
    title = about.title or "Audio codec"
    data = metadata(
        about,
        results,
        title,
        library_name="transformers",
        pipeline_tag="audio-to-audio",
        tags=["audio", "audio-codec", TOOL],
    )
    bits = codec.tokens_per_second * (codec.codebook_size - 1).bit_length()
    facts = [
        f"- fingerprint `{codec.fingerprint}`: a language model grown for it takes no other",
        f"- {codec.sampling_rate:,} Hz in and out, {codec.frame_rate:g} frames a second",
        f"- {codec.num_codebooks} × {codec.codebook_size:,} codes: {codec.tokens_per_second:g} tokens, {bits:,.0f} bits a second",
    ]
    sections = {
        "How to use": "\n\n".join(map(str, snippets)),
        "Codes": "\n".join(facts),
        "Training": training.describe(manifest),
        "Evaluation": tables(results),
        "Limits": _unevaluated([] if results else ["reconstruction"]),
        "Licences": _licences(about),
    }
    return _assemble(data, title, "An audio codec of `entangle-alm`: sound as codes, for language models.", sections)


def _assemble(data: ModelCardData, title: str, what: str, sections: dict[str, str]) -> ModelCard:
    body = "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items())
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {title}\n\n{what}\n\n{body}\n")


def _contract(v: AudioVocabulary) -> str:
    return "\n".join(
        [
            f"Hash `{v.hash}`, over the lines below and the codec's rates; compared at load, in token stores and in results.",
            "",
            "| part | value |",
            "|---|---|",
            f"| codec fingerprint | `{v.codec_fingerprint}` |",
            f"| audio ids | {v.first_id:,} to {v.end - 1:,}: {v.num_codebooks} × {v.codebook_size:,}, frame by frame |",
            f"| start, end, placeholder of audio | {v.start_id:,}, {v.end_id:,}, {v.placeholder_id:,} |",
            f"| stop, padding | {v.stop_id:,}, {v.pad_id:,} |",
            f"| rows of the embedding | {v.rows:,}, of which {v.rows - v.end:,} without a token |",
            f"| embedding and output head | {'one matrix (tied)' if v.tied else 'two matrices'} |",
            f"| tokenizer, chat template | `{v.tokenizer_hash}`, `{v.chat_template_hash}` |",
        ]
    )


def _codec(v: AudioVocabulary, source: str) -> str:
    rates = f"{v.sampling_rate:,} Hz, {v.frame_rate:g} frames and {v.frame_rate * v.num_codebooks:g} tokens a second"
    return f"{source}. {rates}, {v.num_codebooks} × {v.codebook_size:,} codes. Codes of any other codec mean nothing to this model."


def _limits(results: Sequence[Result]) -> str:
    missing = [] if any(not is_sound(r) for r in results) else ["understanding of audio"]
    missing += [] if any(is_sound(r) for r in results) else ["reconstruction by the codec"]
    blind = [r.benchmark for r in results if not is_sound(r) and not any(k.startswith("no_audio") for k in r.controls)]
    hearing = (
        f" {', '.join(blind)}: run without the no-audio control, so its accuracy does not show listening."
        if blind
        else ""
    )
    return _unevaluated([*missing, "speech and sound output"]) + hearing


def _unevaluated(missing: Sequence[str]) -> str:
    absent = ", ".join([*missing, "safety, bias, robustness and languages beyond the data named above"])
    return (
        "Answers and sound are no evidence of who is speaking: do not use this to identify a person. "
        f"Not evaluated: {absent}. The figures above hold for their files alone."
    )


def _licences(about: About) -> str:
    qwen = about.base_model is not None and about.base_model.startswith("Qwen/Qwen3")
    base = f"`{about.base_model}`" if about.base_model else NOT_STATED
    return "\n".join(
        [
            f"- these weights: {about.license or NOT_STATED}",
            f"- base model: {base}{', Apache-2.0 by its authors (github.com/QwenLM/Qwen3)' if qwen else ''}",
            "- training data: see the table under Training; data sets keep their own licences and terms",
            "- `entangle-alm`, the code: Apache-2.0",
        ]
    )
