"""MusicQA's metrics against the libraries they are defined by, and exact match without any."""

from collections import Counter

import pytest

from alm.scoring.answers import Answer, Item
from alm.scoring.open_answers import OpenRule, exact_match, plain
from alm.scoring.text_overlap import TextRule


def items(*answers: str) -> list[Item]:
    return [Item(str(number), "What?", (), answer, {}) for number, answer in enumerate(answers)]


@pytest.mark.parametrize(
    ("said", "gold", "same"),
    [("Yes.", "yes", True), (" yes \n", "YES", True), ("Yes, it is", "yes", False), ("", "", False), ("...", "yes", False),
     ("twenty-one", "twentyone", True), ("two  dogs", "two dogs", True), ("bird", "birds", False), ("café", "cafe", False)],
)  # fmt: skip
def test_exact_match(said: str, gold: str, same: bool) -> None:
    assert exact_match(said, gold) == same


def test_the_commonest_answer_is_the_control_and_empty_answers_are_counted() -> None:
    asked = items("yes", "Yes ", "no", "dog")
    fixed = OpenRule().fixed(asked)
    assert fixed.chosen == {"constant_answer": "yes"} and fixed.vectors["constant_answer"].tolist() == [1, 1, 0, 0]
    assert OpenRule().counts(asked, [Answer("!"), Answer("no"), None, Answer("")]) == {"empty": 2}
    assert OpenRule().prediction(" Yes, it is. ", asked[0]) == "Yes, it is."
    assert plain(" A  B. ") == "a b"


def test_what_is_absent_is_said_and_nothing_stands_in_for_it() -> None:
    rule = TextRule.available()
    every = {"exact_match", "bleu_characters", "bleu4_characters", "rouge_l_recall", "meteor", "bertscore_recall"}
    assert every == {*rule.generated} | (rule.unavailable.keys() - {"loglikelihood", "letter"})
    assert not {*rule.generated} & rule.unavailable.keys() and all(rule.unavailable.values())


def bleu_by_hand(said: str, gold: str, orders: tuple[int, ...]) -> float:
    """Geometric mean of clipped n-gram precisions over characters, times the brevity penalty."""
    from math import exp, log

    total = 0.0
    for n in orders:
        grams, truth = (Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in (said, gold))
        total += log(sum((grams & truth).values()) / grams.total())
    return exp(total / len(orders)) * min(1.0, exp(1 - len(gold) / len(said)))


def test_bleu_counts_characters() -> None:
    pytest.importorskip("nltk")
    rule, (item,) = TextRule.available(), items("a slow rock song with guitars")
    for said in (
        "a slow song",
        "a slow rock song with guitars",
        "rock with loud guitars and a slow song at its very end",
    ):
        (found,) = rule.verdicts([item], [Answer(said)], ["bleu_characters", "bleu4_characters"])
        assert found["bleu_characters"] == pytest.approx(bleu_by_hand(said, item.answer, (1, 2, 3, 4)))
        assert found["bleu4_characters"] == pytest.approx(bleu_by_hand(said, item.answer, (4,)))
    (empty,) = rule.verdicts([item], [Answer()], list(rule.generated))
    assert not any(empty.values())


def test_rouge_is_a_recall_of_stems() -> None:
    pytest.importorskip("rouge_score")
    rule, (item,) = TextRule.available(), items("slow rocking songs")
    (found,) = rule.verdicts([item], [Answer("a very slow rock song, and a lot more is said")], ["rouge_l_recall"])
    assert found["rouge_l_recall"] == 1.0
    (found,) = rule.verdicts([item], [Answer("songs slow")], ["rouge_l_recall"])
    assert found["rouge_l_recall"] == pytest.approx(1 / 3)
