from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError
from alm.data.mmar import MmarItem
from alm.scoring.answers import Answers
from alm.scoring.choice_loop import ChoiceLoop
from alm.scoring.choice_settings import LoopSettings
from alm.scoring.clips import inspect_clips
from alm.scoring.controls import shuffled_clips
from alm.scoring.item_log import ItemLog, Row
from alm.scoring.multiple_choice import ChoiceRule
from alm.scoring.summary import summarise
from alm.scoring.systems.base import ChoiceScores, GeneratedText, Request
from alm.scoring.systems.checkpoint import CheckpointSystem
from alm.vocabulary import ContractError
from codec.audio import write_audio

SETTINGS = LoopSettings(max_new_tokens=6, batch_size=3)
CHOICES = [("a dog", "a cat"), ("one", "two", "three violins", ""), ("rain", "a bell", "the rain", "a roof", "a dog")]


@pytest.fixture
def items(tmp_path: Path) -> list[MmarItem]:
    generator = np.random.default_rng(0)
    found = []
    for number in range(7):
        path = tmp_path / f"{number}.wav"
        write_audio(path, generator.uniform(-0.5, 0.5, 2_400 + 3_000 * (number % 4)).astype(np.float32), 24_000)
        choices = CHOICES[number % 3]
        found.append(
            MmarItem(
                f"i{number}", f"./audio/{number}.wav", "Which sound?", choices, choices[1], "sound", "c", "s", None
            )
        )
    return found


def paths(items: Sequence[MmarItem], folder: Path) -> dict[str, Path]:
    return {item.id: folder / Path(item.audio_path).name for item in items}


def run(
    tiny: LoadedCheckpoint,
    items: Sequence[MmarItem],
    folder: Path,
    settings: LoopSettings = SETTINGS,
    log_name: str = "x.jsonl",
    resume: bool = False,
    max_missing: float = 0.0,
) -> tuple[Answers, dict[str, Row], ChoiceLoop]:
    clips = inspect_clips(paths(items, folder), max_missing)
    partners = shuffled_clips(paths(items, folder), clips.seconds) if "shuffled_audio" in settings.controls else {}
    loop = ChoiceLoop(CheckpointSystem(*tiny), paths(items, folder), settings, ChoiceRule(), partners)
    done = lambda row: row["missing"] is None and row["shuffled_with"] == partners.get(row["id"])  # noqa: E731
    with ItemLog(folder / log_name, "k", resume, done) as log:
        answers = loop.run(items, clips, log, max_missing)
    return answers, log.rows, loop


def test_answers_and_controls_of_every_question(tiny: LoadedCheckpoint, items: list[MmarItem], tmp_path: Path) -> None:
    answers, rows, _ = run(tiny, items, tmp_path)
    assert answers.answers.keys() == answers.controls["no_audio"].keys() == {item.id for item in items}
    for item in items:
        heard, deaf = answers.answers[item.id], answers.controls["no_audio"][item.id]
        assert (
            heard.prediction is not None
            and heard.generated is not None
            and len(heard.loglikelihood or []) == len(item.choices)
        )
        assert heard.loglikelihood != deaf.loglikelihood  # the audio reaches the model
        seconds = inspect_clips(paths([item], tmp_path), 0).seconds[item.id]
        frames = int(np.ceil(seconds * tiny.processor.vocabulary.frame_rate))
        assert heard.prompt_tokens == (deaf.prompt_tokens or 0) + frames + 2  # codes, start and end of audio
        assert rows[item.id]["correct"].keys() == set(SETTINGS.scores(ChoiceRule()))
    empty = answers.answers["i1"]
    assert empty.loglikelihood is not None and empty.loglikelihood[3] is None and None not in empty.loglikelihood[:3]


def test_each_clip_is_encoded_once(tiny: LoadedCheckpoint, items: list[MmarItem], tmp_path: Path) -> None:
    run(tiny, items, tmp_path, replace(SETTINGS, controls=("no_audio",)))
    assert tiny.processor.codec.calls == [3, 3, 1]
    tiny.processor.codec.calls.clear()
    run(tiny, items, tmp_path, SETTINGS, "shuffled.jsonl")  # which hears other batches' clips, too
    assert sum(tiny.processor.codec.calls) == len(items)


def test_a_clip_that_many_questions_share_is_encoded_once(
    tiny: LoadedCheckpoint, items: list[MmarItem], tmp_path: Path
) -> None:
    shared = [replace(items[number % 2], id=f"s{number}") for number in range(8)]
    answers, _, _ = run(tiny, shared, tmp_path)
    assert sum(tiny.processor.codec.calls) == 2
    assert answers.answers["s0"].loglikelihood == pytest.approx(answers.answers["s6"].loglikelihood, abs=1e-5)


def test_batch_size_does_not_change_answers(tiny: LoadedCheckpoint, items: list[MmarItem], tmp_path: Path) -> None:
    single, _, _ = run(tiny, items, tmp_path, LoopSettings(max_new_tokens=6, batch_size=1), "one.jsonl")
    batched, _, _ = run(tiny, items, tmp_path, LoopSettings(max_new_tokens=6, batch_size=16), "sixteen.jsonl")
    for alone, together in (
        (single.answers, batched.answers),
        (single.controls["no_audio"], batched.controls["no_audio"]),
    ):
        for name, answer in alone.items():
            assert (answer.generated, answer.truncated) == (together[name].generated, together[name].truncated)
            assert np.allclose(_numbers(answer.loglikelihood), _numbers(together[name].loglikelihood), atol=1e-5)


def _numbers(values: list[float | None] | None) -> list[float]:
    return [value for value in values or [] if value is not None]


def test_a_run_stopped_anywhere_resumes_to_the_same_rows(
    tiny: LoadedCheckpoint, items: list[MmarItem], tmp_path: Path
) -> None:
    _, whole, _ = run(tiny, items, tmp_path, log_name="whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_bytes().split(b"\n")
    for kept in (0, 2, 3, 5, 7):  # also inside a batch
        torn = b"".join(line + b"\n" for line in lines[:kept]) + (lines[kept][:20] if kept < 7 else b"")
        (tmp_path / "torn.jsonl").write_bytes(torn)
        before = sum(tiny.processor.codec.calls)
        _, rows, _ = run(tiny, items, tmp_path, log_name="torn.jsonl", resume=True)
        assert rows == whole  # to the last bit of every log-probability
        assert (sum(tiny.processor.codec.calls) > before) == (kept < 7)
        assert (tmp_path / "torn.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_clips_that_cannot_be_decoded_are_wrong_listed_and_retried(
    tiny: LoadedCheckpoint, items: list[MmarItem], tmp_path: Path
) -> None:
    whole, _, _ = run(tiny, items, tmp_path, log_name="whole.jsonl")
    sound = (tmp_path / "3.wav").read_bytes()
    (tmp_path / "3.wav").write_bytes(sound[: len(sound) // 2])  # the header reads well
    (tmp_path / "5.wav").write_text("not audio")
    (tmp_path / "6.wav").unlink()
    answers, rows, loop = run(tiny, items, tmp_path, max_missing=0.5)
    assert loop.problems.keys() == {"i3", "i5", "i6"}
    assert "cut short" in rows["i3"]["missing"]
    assert answers.answers.keys() == {"i0", "i1", "i2", "i4"}
    for name, answer in answers.answers.items():
        assert answer.generated == whole.answers[name].generated
    assert (
        answers.controls["no_audio"].keys() == whole.controls["no_audio"].keys()
    )  # their controls are asked all the same
    assert not any(rows["i3"]["correct"].values())
    (tmp_path / "3.wav").write_bytes(sound)
    answers, _, loop = run(tiny, items, tmp_path, max_missing=0.5, resume=True)
    assert loop.problems.keys() == {"i5", "i6"} and "i3" in answers.answers


def test_too_many_bad_clips_stop_the_run(tiny: LoadedCheckpoint, items: list[MmarItem], tmp_path: Path) -> None:
    for number in (0, 3):
        data = (tmp_path / f"{number}.wav").read_bytes()
        (tmp_path / f"{number}.wav").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"2 of 7 clips.*at most 20%.*cut short"):
        run(tiny, items, tmp_path, LoopSettings(max_new_tokens=2, batch_size=1), max_missing=0.2)
    assert (tmp_path / "x.jsonl").read_text().count("\n") >= 1  # what was answered is kept
    for number in range(3):
        (tmp_path / f"{number}.wav").unlink()
    with pytest.raises(DataError, match="3 of 7 clips"):
        inspect_clips(paths(items, tmp_path), 0.2)


def test_a_question_too_long_for_the_model_is_listed_and_not_cut(
    tiny: LoadedCheckpoint, items: list[MmarItem], tmp_path: Path
) -> None:
    write_audio(tmp_path / "0.wav", np.zeros(24_000 * 30, dtype=np.float32), 24_000)
    answers, _, loop = run(tiny, items, tmp_path, max_missing=0.2)
    assert "i0" not in answers.answers and "tokens" in loop.problems["i0"]


def test_a_question_without_room_for_its_answer_is_listed(
    tiny: LoadedCheckpoint, items: list[MmarItem], tmp_path: Path
) -> None:
    settings = LoopSettings(max_new_tokens=tiny.processor.max_length or 0)
    with pytest.raises(DataError, match=r"to be generated .*--max_new_tokens"):
        run(tiny, items, tmp_path, settings)
    answers, _, _ = run(tiny, items, tmp_path, replace(settings, generation=False))
    assert len(answers.answers) == len(items)


def test_parts_can_be_switched_off(tiny: LoadedCheckpoint, items: list[MmarItem], tmp_path: Path) -> None:
    answers, _, _ = run(tiny, items, tmp_path, LoopSettings(generation=False, controls=()), "a.jsonl")
    assert answers.controls == {} and all(a.prediction is None and a.letters for a in answers.answers.values())
    settings = LoopSettings(loglikelihood=False, letter=False, max_new_tokens=2, controls=("no_audio",))
    answers, _, _ = run(tiny, items, tmp_path, settings, "b.jsonl")
    assert all(a.prediction is not None and a.loglikelihood is a.letters is None for a in answers.answers.values())
    assert settings.scores(ChoiceRule()) == ["official", "option"]
    assert "--no_generation" in LoopSettings(generation=False).unavailable(ChoiceRule())["official"]
    assert "--no_letter" in settings.unavailable(ChoiceRule())["letter"]


class Recorder:
    """A system that notes what it is asked, names the first choice, and finds the last of them likeliest."""

    label, identity = "recorder", {"weights": "none"}

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.scored: list[Request] = []

    def answer(self, batch: Sequence[Request], max_new_tokens: int) -> list[GeneratedText]:
        self.asked += batch
        return [GeneratedText(request.text.split("\n")[2]) for request in batch]

    def score(self, batch: Sequence[Request]) -> list[ChoiceScores]:
        self.scored += batch
        return [ChoiceScores(tuple(map(float, range(len(r.choices)))), (1,) * len(r.choices)) for r in batch]


def record(items: Sequence[MmarItem], folder: Path, settings: LoopSettings) -> tuple[Recorder, Answers]:
    system, clips = Recorder(), inspect_clips(paths(items, folder), 0)
    partners = shuffled_clips(paths(items, folder), clips.seconds)
    loop = ChoiceLoop(system, paths(items, folder), settings, ChoiceRule(), partners)
    with ItemLog(folder / "recorded.jsonl", "k") as log:
        return system, loop.run(items, clips, log, 0)


def test_controls_are_the_same_questions_without_the_clip_and_with_anothers(
    items: list[MmarItem], tmp_path: Path
) -> None:
    system, answers = record(items, tmp_path, SETTINGS)
    assert list(answers.controls) == ["no_audio", "shuffled_audio"]
    texts = [request.text for request in system.asked]
    assert len(texts) == 3 * len(items) and {texts.count(text) for text in texts} == {
        6,
        9,
    }  # 2 or 3 items of each wording
    clips = [request.audio for request in system.asked if request.audio is not None]
    assert {clips.count(tmp_path / f"{number}.wav") for number in range(7)} == {2}  # once as its own, once as another's


def test_letters_are_scored_with_lettered_choices_and_without_the_end_of_turn(
    items: list[MmarItem], tmp_path: Path
) -> None:
    system, answers = record(items[1:2], tmp_path, replace(SETTINGS, controls=()))
    text, letter = system.scored
    assert text.choices == ("one", "two", "three violins") and text.closed  # the empty choice is no candidate
    assert letter.choices == ("A", "B", "C") and not letter.closed and "\nC. three violins\nD. \n" in letter.text
    assert answers.answers["i1"].letters == answers.answers["i1"].loglikelihood == [0.0, 1.0, 2.0, None]


def test_cyclic_permutations_put_every_choice_at_every_place(items: list[MmarItem], tmp_path: Path) -> None:
    settings = replace(SETTINGS, controls=(), cyclic=True, letter=False)
    system, answers = record(items, tmp_path, settings)
    for item in items[:3]:
        count = len(item.choices)
        turned = [r.text.split("\n")[2:] for r in system.asked if r.audio == paths(items, tmp_path)[item.id]]
        assert sorted(map(tuple, turned)) == sorted(item.choices[s:] + item.choices[:s] for s in range(count))
        assert len(answers.rotations[item.id]) == count - 1
    result = summarise("x", "x", items, answers, ChoiceRule(), settings.scores(ChoiceRule()), {})
    # always the first: over all rotations right as often as chance, and never under all
    chance = sum(1 / len(item.choices) for item in items) / len(items)
    dirt = result.scores["option_cyclic"].value - chance  # "" names nothing, but the empty choice is never gold here
    assert dirt == pytest.approx(0) and result.scores["option_cyclic_all"].value == 0
    assert result.scores["official"].value == 0 and "loglikelihood_cyclic_all" in result.scores


def test_lettered_files_are_asked_without_their_letters_and_scored_with_them(
    items: list[MmarItem], tmp_path: Path
) -> None:
    lettered = [replace(items[0], choices=("(A) a dog", "(B) a cat"), answer="(A) a dog")]
    system, answers = record(lettered, tmp_path, replace(SETTINGS, controls=(), cyclic=True))
    assert system.asked[0].text.endswith("\na dog\na cat") and system.asked[1].text.endswith("\na cat\na dog")
    assert answers.answers["i0"].prediction == "(A) a dog"
    result = summarise("x", "x", lettered, answers, ChoiceRule(), ["official", "option"], {})
    assert result.scores["official"].value == 1 and result.scores["option_cyclic"].value == 0.5


def test_another_prompt_in_training_than_in_generation_is_an_error(
    tiny: LoadedCheckpoint, items: list[MmarItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = tiny.processor.encode_messages
    monkeypatch.setattr(tiny.processor, "encode_messages", lambda m, **k: [*encode(m, **k), 5])
    with pytest.raises(ContractError, match="another prompt for training"):
        run(tiny, items, tmp_path)


def test_errors_of_our_own_are_not_taken_for_bad_clips(
    tiny: LoadedCheckpoint, items: list[MmarItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(tiny.processor, "encode_audio", broken)
    with pytest.raises(KeyError, match="a bug"):
        run(tiny, items, tmp_path)


def test_likelihoods_that_are_no_numbers_end_the_run(items: list[MmarItem], tmp_path: Path) -> None:
    class Broken(Recorder):
        def score(self, batch: Sequence[Request]) -> list[ChoiceScores]:
            return [ChoiceScores((np.nan,) * len(r.choices), (1,) * len(r.choices)) for r in batch]

    clips = inspect_clips(paths(items, tmp_path), 0)
    loop = ChoiceLoop(Broken(), paths(items, tmp_path), SETTINGS, ChoiceRule())
    with (
        ItemLog(tmp_path / "broken.jsonl", "k") as log,
        pytest.raises(DataError, match=r"question i3: the model gives .*nan.*weights broken"),
    ):
        loop.run(items, clips, log, 0)
    assert not log.rows
