"""Named prompts: how a question is put to a system. The name stands in every result, since wording alone moves scores by ten points."""

import string
from collections.abc import Callable, Sequence

from alm.prompts import MULTIPLE_CHOICE_PROMPT_ID, multiple_choice_prompt

Prompt = Callable[[str, Sequence[str]], str]
"""Question and choices (without letters of their own) to the text of the user's turn."""


def lettered(choices: Sequence[str], form: str = "{letter}. {choice}") -> str:
    """The choices a line each, with running letters."""
    pairs = zip(string.ascii_uppercase, choices, strict=False)
    return "\n".join(form.format(letter=letter, choice=choice) for letter, choice in pairs)


def _letter(question: str, choices: Sequence[str]) -> str:
    return f"{question}\n{lettered(choices)}\nAnswer with the option's letter from the given choices directly."


def _audio_flamingo(question: str, choices: Sequence[str]) -> str:
    return (
        f"{question} Choose the correct option from the following options:\n{lettered(choices, '({letter}) {choice}')}"
    )


def _mmau_authors(question: str, choices: Sequence[str]) -> str:
    return f"{question}  Select one option from the provided choices.\n{list(choices)}."


def _r1_aqa(question: str, choices: Sequence[str]) -> str:
    options = f"Please choose the answer from the following options: {list(choices)}."
    return f"{question} {options} Output the final answer in <answer> </answer>."


LETTER_PROMPT = "lmms-letter"
"""The prompt of the letter protocol, whatever the generated answers are asked with."""

CHOICE_PROMPTS: dict[str, Prompt] = {
    MULTIPLE_CHOICE_PROMPT_ID: multiple_choice_prompt,
    "mmau-authors": _mmau_authors,  # issue 3 of their repository; the list in Python's form, which it does not tell
    LETTER_PROMPT: _letter,  # lmms-eval
    "audio-flamingo": _audio_flamingo,  # Audio Flamingo 2 and 3
    "r1-aqa": _r1_aqa,
}
OPEN_PROMPTS: dict[str, Prompt] = {
    "question": lambda question, _: question,
    "one-word": lambda question, _: f"{question}\nAnswer the question using a single word only. ",  # lmms-eval
    "qwen2-audio": lambda question, _: (
        f"Listen to the given audio carefully and answer this question: {question} Your answer is:"
    ),
}
PROMPTS = CHOICE_PROMPTS | OPEN_PROMPTS
