"""ClothoAQA's questions and the four rules by which they are scored: there is no official script, so results must name theirs.

Three annotators answered each question. A rule gives the answer that counts as true, or None where it leaves the question out; on
the test split's 2,838 questions `unanimous` keeps 1,312, `binary` 1,892, `majority` 2,476 and `lmms` 1,442.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, get_args

Rule = Literal["unanimous", "binary", "majority", "lmms"]


class Question(NamedTuple):
    """One question about one clip with all its annotators' answers, and how sure each was ("yes", "maybe" or "no" in any case)."""

    file_name: str
    text: str
    answers: tuple[str, ...]
    confidences: tuple[str, ...]


def unanimous(question: Question) -> str | None:
    """Where all annotators agree; what papers usually call the ClothoAQA test set."""
    return question.answers[0] if len(set(question.answers)) == 1 else None


def binary(question: Question) -> str | None:
    """Questions answered with yes and no only; the more frequent of the two (the data set's paper scores these apart)."""
    return majority(question) if _yes_or_no(question) else None


def majority(question: Question) -> str | None:
    """The answer of at least two in three annotators (the "clean" list of MWAFM and Kimi-Audio-Evalkit)."""
    return _agreed(question.answers, len(question.answers))


def lmms(question: Question) -> str | None:
    """Binary questions; the answer that at least two give among those who are sure (lmms-eval's `clotho_aqa_test_filtered`)."""
    if not _yes_or_no(question):
        return None
    pairs = zip(question.answers, question.confidences, strict=True)
    sure = [answer for answer, confidence in pairs if confidence.lower() == "yes"]
    return _agreed(sure, len(sure))


RULES: dict[Rule, Callable[[Question], str | None]] = {
    "unanimous": unanimous,
    "binary": binary,
    "majority": majority,
    "lmms": lmms,
}
assert tuple(RULES) == get_args(Rule)


def _yes_or_no(question: Question) -> bool:
    return {answer.lower() for answer in question.answers} <= {"yes", "no"}


def _agreed(answers: Iterable[str], annotators: int) -> str | None:
    answer, votes = (Counter(answers).most_common(1) or [("", 0)])[0]
    return answer if votes >= 2 and 3 * votes >= 2 * annotators else None
