import json
from pathlib import Path

import pytest

from alm.data.example import DataError
from alm.data.mmar import MmarItem
from alm.scoring.answers import Answer, Answers
from alm.scoring.multiple_choice import ChoiceRule, correct
from alm.scoring.predictions import read_predictions
from alm.scoring.summary import summarise


def item(
    name: str, choices: tuple[str, ...] = ("dog", "cat", "cow", "pig"), answer: str = "cat", modality: str = "sound"
) -> MmarItem:
    return MmarItem(name, f"./audio/{name}.wav", "What?", choices, answer, modality, "Perception", "Counting", None)


ITEMS = [item("1"), item("2"), item("3", modality="music"), item("4", ("x", ""), "x", "music")]
EVERY = ["official", "option", "loglikelihood", "loglikelihood_mean"]


def test_one_answer_by_every_score() -> None:
    answer = Answer("Cat.", loglikelihood=[-9.0, -4.0, -3.0, -8.0], tokens=[2, 4, 2, 2])
    assert correct(ITEMS[0], answer, EVERY) == {
        "official": True,
        "option": True,
        "loglikelihood": False,  # the third sums highest
        "loglikelihood_mean": True,  # per token, the second
    }
    assert not any(correct(ITEMS[0], Answer(), EVERY).values())


def test_an_empty_choice_is_no_candidate_and_ties_go_to_the_first() -> None:
    assert correct(ITEMS[3], Answer(loglikelihood=[-50.0, None], tokens=[9, 0]), EVERY[2:]) == dict.fromkeys(
        EVERY[2:], True
    )
    assert correct(ITEMS[0], Answer(loglikelihood=[-1.0] * 4, tokens=[1] * 4), EVERY[2:]) == dict.fromkeys(
        EVERY[2:], False
    )
    assert not correct(ITEMS[3], Answer(loglikelihood=[None, None], tokens=[0, 0]), ["loglikelihood"])["loglikelihood"]


def test_missing_and_unparsed_answers_are_wrong_and_counted_apart() -> None:
    given = Answers({"1": Answer("cat"), "2": Answer("what a question", truncated=True), "4": Answer("")})
    result = summarise("MMAR", "x", ITEMS, given, ChoiceRule(), ["official", "option"], {})
    assert result.scores["official"].value == result.scores["option"].value == 1 / 4
    assert result.scores["official"].n == 4
    assert {k: result.counts[k] for k in ("items", "missing", "unparsed", "truncated")} == {
        "items": 4,
        "missing": 1,
        "unparsed": 2,
        "truncated": 1,
    }
    assert "no_audio_official" not in result.controls


def test_groups_and_controls_stand_beside_each_other() -> None:
    said = {
        i.id: Answer(i.answer, loglikelihood=[-1.0, 0.0, -1.0, -1.0][: len(i.choices)], tokens=[1] * 4) for i in ITEMS
    }
    said["4"] = Answer("x", loglikelihood=[-1.0, None], tokens=[1, 0])
    deaf = {i.id: Answer("pig", loglikelihood=[0.0] * len(i.choices), tokens=[1] * len(i.choices)) for i in ITEMS}
    said = {
        name: Answer(a.prediction, loglikelihood=a.loglikelihood, tokens=a.tokens[: len(a.loglikelihood)])
        for name, a in said.items()
    }
    result = summarise("MMAR", "x", ITEMS, Answers(said, {"no_audio": deaf}), ChoiceRule(), EVERY, {"data": "d"})
    assert {name: score.value for name, score in result.scores.items()} == dict.fromkeys(EVERY, 1.0)
    assert result.controls["no_audio_official"].value == 0
    assert result.controls["no_audio_loglikelihood"].value == 1 / 4
    assert result.controls["gain_over_no_audio_official"].value == 1
    assert result.manifest == {"data": "d", "constant_position": 2}
    assert result.controls["chance"].value == pytest.approx((3 / 4 + 1 / 2) / 4)
    music = result.groups["modality"]["music"]
    assert list(music) == [
        "official", "option", "loglikelihood", "no_audio_loglikelihood", "chance", "constant_position", "longest_choice",
    ]  # fmt: skip
    assert music["chance"].value == 3 / 8 and music["official"].n == 2
    assert sum(group["official"].n for group in result.groups["modality"].values()) == 4


def test_answers_survive_their_row() -> None:
    answer = Answer("cat", "(B) cat", True, [-1.25, None], [3, 0], 17)
    assert Answer.from_row(json.loads(json.dumps({"id": "1", **answer.to_row()}))) == answer


@pytest.mark.parametrize("key", ["prediction", "answer_prediction", "model_output", "model_prediction"])
@pytest.mark.parametrize("lines", [True, False])
def test_stored_answers_in_every_accepted_form(tmp_path: Path, key: str, lines: bool) -> None:
    rows = [{"id": "1", key: " Cat\u2028 "}, {"id": "2", key: ""}, {"id": "3", key: None}, {"id": "4"}]
    rows += [{"id": "5", "prediction": None, key: "Dog"}] * (key != "prediction")
    path = tmp_path / "answers.json"
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    answers = read_predictions(path)
    assert answers.pop("5", Answer("Dog")) == Answer("Dog")
    assert answers == {"1": Answer(" Cat\u2028 "), "2": Answer("")}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "1", "prediction": "a"}, {"id": "1", "prediction": "b"}], "row 2.*given in row 1 already"),
        ([{"prediction": "a"}], "row 1: 'id'"),
        ([{"id": 1, "prediction": "a"}], "row 1: 'id'"),
        ([{"id": "1", "prediction": 3}], "row 1.*must be text, got int"),
        (["cat"], "row 1.*object expected"),
        ([], "none of its 0 rows has an answer"),
        (
            [{"id": "1", "output": "a"}],
            "none of its 1 rows has an answer; it stands as text under 'id' and one of prediction, ",
        ),
        ([{f"q{number}": "a" for number in range(1000)}], "q19 and 980 more"),
    ],
)
def test_broken_stored_answers_name_the_row(tmp_path: Path, rows: list, message: str) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message):
        read_predictions(path)
