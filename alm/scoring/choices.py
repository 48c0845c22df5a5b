"""Multiple choice: the official rule of MMAU and MMAR bit for bit, and a strict parser of which option an answer names."""

import re
import string
import unicodedata
from collections.abc import Sequence

LEAD_IN = re.compile(
    r"\b(?:the\s+)?(?:(?:correct|right|best|final|most\s+likely)\s+)*(?:answer|option|choice)(?:\s+is)?\s*[:：]?\s*"
    r"(?:(?:option|choice)\s+)?|答案(?:是|为)?\s*[:：]?\s*",
    re.IGNORECASE,
)
"""How models announce an answer: "The correct answer is:", "Answer:", "Option", "答案是"."""
ANSWER_TAG = re.compile(r"<(answer|response)>(.*?)(?:</\1>|$)", re.IGNORECASE | re.DOTALL)
LETTER_ALONE = re.compile(r"\(?([A-Za-z])\)?[.):]?")
LETTER_FIRST = re.compile(r"(?:\(([A-Z])\)\s*|([A-Z])[.):]\s+)(.+)", re.DOTALL)  # "D:maj" is a chord and not option D
WRAPPING = "*_`\"'“”.。!,; "
"""Around an answer without being part of it: Markdown emphasis, quotation marks, a full stop."""


def official_match(prediction: str, answer: str, choices: Sequence[str]) -> bool:
    """The rule of MMAU's and MMAR's `evaluation.py` (`string_match`).

    An answer is right when it holds every token of the gold text and no token of a wrong choice that the gold text lacks.
    Tokens are the distinct lower-cased `\\w+` words, so order and punctuation do not count. A choice with the gold text's own
    tokens is not wrong. Differs from the official program in one way, outside this function: a missing answer counts as wrong
    there, where the program leaves it out of the denominator.
    """
    given, gold = _tokens(prediction), _tokens(answer)
    if not given:
        return False
    wrong: set[str] = set()
    for choice in choices:
        tokens = _tokens(choice)
        if tokens != gold:
            wrong |= tokens - gold
    return gold <= given and not given & wrong


def _tokens(text: str) -> set[str]:
    return set(re.findall(r"\b\w+\b", text.lower()))


def normalise(text: str) -> str:
    """The form in which two texts are the same choice: NFC, case folded, runs of white space as one blank, none outside."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def bare_choices(choices: Sequence[str]) -> tuple[str, ...]:
    """The choices without their letters, if every one carries the running letter ("(A) x", "A. x", "A) x", "A: x"); else as given."""
    bare = []
    for letter, choice in zip(string.ascii_uppercase, choices, strict=False):
        found = re.fullmatch(rf"\s*(?:\({letter}\)|{letter}[.):])\s+(.*)", choice, re.DOTALL)
        if found is None:
            return tuple(choices)
        bare.append(found[1])
    return tuple(bare) if len(bare) == len(choices) else tuple(choices)


def gold_indices(answer: str, choices: Sequence[str]) -> frozenset[int]:
    """Every choice that says what the gold answer says (a duplicated text is right wherever it stands).

    An answer that is only a letter, beside lettered choices, means that position (the mirrors' form). Empty when the answer is
    not among the choices, as in 6 rows of an older release: such a question cannot be answered by choosing.
    """
    same = frozenset(index for index, choice in enumerate(choices) if normalise(choice) == normalise(answer))
    bare = bare_choices(choices)
    if same or bare == tuple(choices):
        return same
    if re.fullmatch(r"[A-Z]", answer.strip()):
        index = string.ascii_uppercase.index(answer.strip())
        return same_choices(index, bare) if index < len(bare) else frozenset()
    return frozenset(index for index, choice in enumerate(bare) if normalise(choice) == normalise(answer))


def gold_text(answer: str, choices: Sequence[str]) -> str:
    """The answer as the official rule wants it: the text itself, or of a mirror that gives a letter only, that choice's text."""
    named = sorted(gold_indices(answer, choices))
    only_letter = re.fullmatch(r"[A-Z]", answer.strip()) and bare_choices(choices) != tuple(choices)
    return choices[named[0]] if named and only_letter else answer


def same_choices(index: int, choices: Sequence[str]) -> frozenset[int]:
    """All positions whose text is that of `choices[index]`."""
    return frozenset(other for other, choice in enumerate(choices) if normalise(choice) == normalise(choices[index]))


def parse_option(prediction: str, choices: Sequence[str]) -> int | None:
    """The position of the choice that an answer names, or None: nothing is guessed, and nothing defaults to the first choice.

    Understood, in this order: a choice's text; a letter ("B", "(b)", "B."), also of a fifth or later choice; letter and text
    ("(B) text"; None if they disagree); each of these inside the last `<answer>` tag, after the last "The answer is", or alone
    on the last line. Case, white space, Markdown emphasis and a full stop at the end do not matter. Where the choices are
    themselves letters (notes, chords), the text wins: "A" is the choice "A". A letter before a text that is no choice counts. Of
    duplicated texts the first is given.
    """
    bare = bare_choices(choices)
    for candidate in _candidates(prediction):
        if (index := _named(candidate, choices, bare)) is not None:
            return index
    return None


def bare_answer(prediction: str, choices: Sequence[str]) -> str:
    """Cut a generated answer down to the bare text that the official rule wants; never turns it into another choice's text.

    Takes the inside of the last `<answer>` tag, then what follows a "The answer is" at the very beginning, then drops a leading
    "(B) " or "B. " that text follows, and outer white space; stops as soon as the text is one of the choices ("F. Scott
    Fitzgerald" is no letter and a name). "The answer is" alone costs 9 points of 100 under the official rule, because wrong
    choices contain its words. A plain text stays as it is. Where the file's choices carry letters (the official rule wants them
    then), a choice named without its letter is given as the file has it.
    """
    bare = bare_choices(choices)
    known = {normalise(choice) for choice in (*choices, *bare)}
    text = prediction.strip()
    for cut in (_inside_tag, _after_lead_in, _without_letter):
        if normalise(text) in known:
            break
        text = cut(text)
    if bare != tuple(choices):
        named = parse_option(prediction, choices)
        if named is not None and normalise(bare[named]) == normalise(text):
            return choices[named]
    return text


def _inside_tag(text: str) -> str:
    tags = ANSWER_TAG.findall(text)
    return tags[-1][1].strip() if tags else text


def _after_lead_in(text: str) -> str:
    lead = LEAD_IN.match(text)
    announces = lead is not None and re.search(r"\bis\b|[:：是为]", lead[0], re.IGNORECASE)
    return text[lead.end() :].strip() or text if lead and announces else text


def _without_letter(text: str) -> str:
    letter = LETTER_FIRST.fullmatch(text)
    return letter[3].strip() if letter else text


def _candidates(prediction: str) -> list[str]:
    """The stretches of an answer that may name a choice, the whole first."""
    whole = prediction.strip()
    found = [whole, _inside_tag(whole)]
    for text in list(found):
        leads = list(LEAD_IN.finditer(text))
        if leads:
            found.append(text[leads[-1].end() :].strip())
    if whole:
        found.append(whole.splitlines()[-1].strip())
    return found


def _named(candidate: str, choices: Sequence[str], bare: Sequence[str]) -> int | None:
    if (index := _by_text(candidate, choices, bare)) is not None:
        return index
    text = candidate.strip(WRAPPING).strip()
    if alone := LETTER_ALONE.fullmatch(text):
        return _position(alone[1], choices)
    if first := LETTER_FIRST.fullmatch(text):
        index, rest = _position(first[1] or first[2], choices), _by_text(first[3], choices, bare)
        if index is not None and (rest is None or rest in same_choices(index, bare)):
            return index
    return None


def _by_text(text: str, choices: Sequence[str], bare: Sequence[str]) -> int | None:
    """The first choice with this text; failing that, the only one with it when both are unwrapped."""
    for texts in (choices, bare):
        same = [index for index, choice in enumerate(texts) if normalise(choice) == normalise(text) != ""]
        if same:
            return same[0]
    wanted = normalise(text).strip(WRAPPING)
    close = [index for index, choice in enumerate(bare) if normalise(choice).strip(WRAPPING) == wanted != ""]
    return close[0] if close and frozenset(close) == same_choices(close[0], bare) else None


def _position(letter: str, choices: Sequence[str]) -> int | None:
    index = string.ascii_uppercase.index(letter.upper())
    return index if index < len(choices) else None
