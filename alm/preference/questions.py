"""GRPO's data: what the model is asked, as text that is tokenised to the very ids, and what its turn is held against."""

from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from alm.data.choice_rows import find_audio
from alm.data.example import DataError, Message
from alm.data.json_rows import Row
from alm.data.tokens import TokenStore
from alm.preference.rows import messages_of, read_rows, texts_of
from alm.processing import AudioLanguageProcessor
from alm.prompts import multiple_choice_prompt, question_messages, sound_messages, speech_messages
from alm.serving.messages import as_text

TEXT, AUDIO = "text", "audio"
"""What the model's turn is."""
FORMS = (
    'accepted are {"prompt", "answer", "choices"}, MMAR\'s rows {"question", "choices", "answer", "audio_path"}, {"say": TEXT} and '
    '{"sound": CAPTION}, the last two with a "prompt" of their own or not'
)


def read_questions(
    file: str | Path,
    processor: AudioLanguageProcessor,
    store: TokenStore | None,
    audio_folder: str | None = None,
    max_length: int | None = None,
) -> tuple[Dataset, str]:
    """Questions of a file, and whether their turns are `TEXT` or `AUDIO`: all of a file are of one kind, as one grammar holds for all.

    Columns: `prompt` (text, audio tokens in it), `prompt_tokens` (their number), `answer`, `choices`, `say`, `caption`; None where a row
    has it not.
    Raises `DataError` with file and row.
    """
    make = partial(question, processor=processor, store=store, audio_folder=audio_folder, max_length=max_length)
    rows = read_rows(file, make)
    kinds = {AUDIO if row["say"] or row["caption"] else TEXT for row in rows}
    if len(kinds) > 1:
        raise DataError(
            f"{file}: questions and texts to speak in one file; they need one each, as a run has one grammar"
        )
    return Dataset.from_list(rows), kinds.pop()


def question(
    row: Row,
    processor: AudioLanguageProcessor,
    store: TokenStore | None = None,
    audio_folder: str | None = None,
    max_length: int | None = None,
) -> dict[str, Any]:
    """One question. Its text is proved to be tokenised to the processor's ids, audio included."""
    held = {
        "answer": row.get("answer"),
        "choices": texts_of(row, "choices"),
        "say": row.get("say"),
        "caption": row.get("sound"),
    }
    if not all(held[name] is None or isinstance(held[name], str) for name in ("answer", "say", "caption")):
        raise DataError(f"'answer', 'say' and 'sound' must be texts, got {row!r:.80}")
    if held["choices"] and held["answer"] is None:
        raise DataError("'choices' without an 'answer': there is nothing to be right about")
    written = as_text(_messages(row, held, store, audio_folder), processor)
    # TRL's tokenisation, which leaves out no option that ours sets
    assert processor.tokenizer(text=[written.prompt])["input_ids"] == [written.ids]
    if max_length is not None and len(written.ids) > max_length:
        raise DataError(
            f"a prompt of {len(written.ids)} tokens, and --max_length {max_length} leaves no room for the answer"
        )
    return {"prompt": written.prompt, "prompt_tokens": len(written.ids), **held}


def _messages(row: Row, held: Row, store: TokenStore | None, audio_folder: str | None) -> list[Message]:
    if "prompt" in row:
        return messages_of(row["prompt"], store)
    if held["say"]:
        return speech_messages(held["say"])
    if held["caption"]:
        return sound_messages(held["caption"])
    if held["choices"] and isinstance(row.get("question"), str):
        text = multiple_choice_prompt(row["question"], held["choices"])
        return messages_of(question_messages(text, _clip(row, audio_folder)), store)
    raise DataError(f"{FORMS}; got {sorted(row)}")


def _clip(row: Row, folder: str | None) -> dict[str, Any] | None:
    path = row.get("audio_path")
    if path is None:
        return None
    if not isinstance(path, str):
        raise DataError(f"'audio_path' must be text, got {path!r:.80}")
    return {"type": "audio", "path": str(find_audio(path, Path(folder)) if folder else path)}
