"""The corpus on disk: complete or absent, reproducible whatever the number of workers, in the real data sets' formats."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("espeakng_loader")

from alm.data import caption_lists, clothoaqa, mmau
from alm.data.choice_rows import find_audio
from alm.data.demo import corpus, formats
from alm.data.demo.captions import caption
from alm.data.demo.corpus import MANIFEST, Settings, build, make_plan
from alm.data.demo.render import render
from alm.data.example import DataError

SETTINGS = Settings(train_clips=48, test_clips=30, seed=5)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    assert not build(folder, SETTINGS, workers=1).reused
    return folder


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_two_workers_make_the_same_bytes(root: Path, tmp_path: Path) -> None:
    build(tmp_path / "again", SETTINGS, workers=2)
    assert contents(tmp_path / "again") == contents(root)


def test_another_seed_makes_other_audio_for_the_same_scene() -> None:
    for scene in make_plan(SETTINGS).train[::6]:
        assert render(scene, 0).tobytes() == render(scene, 0).tobytes() != render(scene, 1).tobytes()


def test_every_clip_is_sound_and_of_the_promised_form(root: Path) -> None:
    for path in root.rglob("*.wav"):
        wave, rate = soundfile.read(path, dtype="float64")
        info = soundfile.info(path)
        at_16k = (
            "compa_r_train_audios/train_" in path.as_posix()
            and not (root / formats.CLOTHOAQA_AUDIO / path.name).exists()
        )
        speech_test = any(form in path.name for form in ("word", "pace", "conversation")) and "mmar" in path.parts
        assert rate == (16_000 if at_16k or speech_test else 24_000), path
        assert info.channels == 1 and info.subtype == "PCM_16"
        assert 1.55 <= len(wave) / rate <= 3.05
        assert np.isfinite(wave).all() and 0.02 < np.abs(wave).max() <= 0.999
        assert -45 < 20 * np.log10(np.sqrt(np.mean(wave**2))) < -10
        assert np.abs(wave).min() >= 0 and len(np.unique(wave[:800])) > 3  # a noise floor: no digital silence


def test_musicqa_and_compa_r_point_at_their_audio(root: Path) -> None:
    music = json.loads((root / formats.MUSICQA).read_text())
    for row in music:
        assert set(row) == {"audio_name", "conversation"}
        assert [turn["from"] for turn in row["conversation"]] == ["human", "gpt"]
        assert (root / formats.MUSICQA_AUDIO / row["audio_name"]).is_file()
    compa = json.loads((root / formats.COMPA_R).read_text())
    for row in compa:
        assert set(row) == {"audio_id", "instruction", "input", "output", "dataset", "task"}
        assert row["audio_id"].startswith("./compa_r_train_audios/")
        assert (root / "compa_r" / row["audio_id"]).is_file()
    spoken = [row for row in compa if row["dataset"] == "demo-speech" and row["task"] != "description"]
    forms = ["Select one option" in row["instruction"] for row in spoken]
    assert abs(sum(forms) - len(forms) / 2) <= len(formats.KINDS) / 2


def test_clothoaqa_has_three_annotators_and_single_words(root: Path) -> None:
    answers = rows(root / formats.CLOTHOAQA)
    assert list(answers[0]) == ["file_name", "QuestionText", "answer", "confidence"]
    for first, second, third in zip(answers[::3], answers[1::3], answers[2::3], strict=True):
        assert first == second == third and first["confidence"] == "yes"
        assert first["answer"].isalpha() and first["answer"].islower() and "\n" not in first["QuestionText"]
        assert (root / formats.CLOTHOAQA_AUDIO / first["file_name"]).is_file()
    assert len({(row["file_name"], row["QuestionText"]) for row in answers}) == len(answers) // 3


def test_every_training_question_is_asked_and_every_clip_described_once(root: Path) -> None:
    music = json.loads((root / formats.MUSICQA).read_text())
    compa = json.loads((root / formats.COMPA_R).read_text())
    clotho = rows(root / formats.CLOTHOAQA)[::3]
    asked = [(r["audio_name"], r["conversation"][0]["value"], r["conversation"][1]["value"]) for r in music]
    asked += [(Path(r["audio_id"]).name, r["instruction"], r["output"]) for r in compa]
    asked += [(r["file_name"], r["QuestionText"], r["answer"]) for r in clotho]
    told = [(name, answer) for name, text, answer in asked if text == formats.DESCRIBE]
    asked = [row for row in asked if row[1] != formats.DESCRIBE]
    plan = make_plan(SETTINGS)
    questions = plan.train_questions
    assert sorted(told) == sorted((f"{scene.id}.wav", caption(scene)) for scene in plan.train)
    wanted = [{(f"{q.scene.id}.wav", text, q.answer) for text in (q.text, q.prompt)} for q in questions]
    assert len(asked) == len(questions) and all(len(pair & set(asked)) == 1 for pair in wanted)


def test_mmar_rows_have_every_column_and_their_audio(root: Path) -> None:
    lines = [json.loads(line) for line in (root / formats.MMAR).read_text(encoding="utf-8").splitlines()]
    columns = "id audio_path question choices answer modality category sub-category language source url timestamp kind"
    assert len({row["id"] for row in lines}) == len(lines) == len(make_plan(SETTINGS).test_questions)
    for row in lines:
        assert list(row) == columns.split()
        assert row["audio_path"] == f"./audio/{row['id']}.wav" and (root / "mmar" / row["audio_path"]).is_file()
        assert row["answer"] in row["choices"] and row["sub-category"] == row["kind"]
        assert row["category"] in ("Semantic Layer", "Perception Layer", "Signal Layer", "Cultural Layer")
        assert row["modality"] in ("speech", "sound", "music", "mix-sound-speech", "mix-music-speech")
    assert len(list((root / formats.MMAR_AUDIO).iterdir())) == len(lines)


def test_the_other_benchmarks_ask_the_same_of_the_same_clips(root: Path) -> None:
    questions, audio = make_plan(SETTINGS).test_questions, root / formats.MMAR_AUDIO
    known = {formats.row_id(question): question for question in questions}
    items = mmau.read(root / formats.MMAU, audio).items
    asked = {item.id: (item.question, item.choices, item.answer) for item in items}
    assert asked == {name: (q.text, q.choices, q.answer) for name, q in known.items()}
    clotho = [question for _, question in clothoaqa.questions(root / formats.CLOTHOAQA_TEST)]
    music = json.loads((root / formats.MUSICQA_TEST).read_text())
    answered = {Path(q.file_name).stem: (q.text, *set(q.answers)) for q in clotho}
    answered |= {Path(r["audio_name"]).stem: tuple(turn["value"] for turn in r["conversation"]) for r in music}
    assert answered == {name: (q.text, q.answer) for name, q in known.items() if q.scene.domain != "speech"}
    assert all(find_audio(f"{name}.wav", audio).is_file() for name in known)
    captions = caption_lists.read(root / formats.AUDIOCAPS_TEST)
    assert captions.recordings(root / "audiocaps" / "test").keys() == {item.clip for item in captions.items}
    assert len(captions.items) == sum(scene.domain == "sound" for scene in make_plan(SETTINGS).test)


def test_captions_list_every_training_clip_once(root: Path) -> None:
    captions = rows(root / formats.CAPTIONS)
    assert list(captions[0]) == ["file_name", "caption"]
    assert len({row["file_name"] for row in captions}) == len(captions) == SETTINGS.train_clips
    assert all((root / row["file_name"]).is_file() and "mmar" not in row["file_name"] for row in captions)


def test_libritts_tree_and_audiocaps(root: Path) -> None:
    waves = list((root / "libritts").rglob("*.wav"))
    assert waves
    for wave in waves:
        speaker, chapter, _ = wave.relative_to(root / formats.LIBRITTS).parts
        assert wave.name.startswith(f"{speaker}_{chapter}_")
        normalized, original = (wave.with_suffix(f".{name}.txt").read_text() for name in ("normalized", "original"))
        assert normalized == original and normalized[0].isupper()
    captions = rows(root / formats.AUDIOCAPS)
    assert list(captions[0]) == ["audiocap_id", "youtube_id", "start_time", "caption"]
    for row in captions:
        assert len(row["youtube_id"]) == 11 and (root / formats.AUDIOCAPS_AUDIO / f"{row['youtube_id']}.wav").is_file()


def test_linked_clips_are_the_same_bytes(root: Path) -> None:
    for scene in make_plan(SETTINGS).train:
        for name, source in formats.files_of(scene, []).links:
            assert (root / name).read_bytes() == (root / source).read_bytes()


def test_the_manifest_tells_what_was_made(root: Path) -> None:
    manifest = json.loads((root / MANIFEST).read_text())
    assert manifest["settings"] == {"train_clips": 48, "test_clips": 30, "seed": 5}
    assert sum(manifest["clips"]["train"].values()) == 48
    assert sum(manifest["questions"]["test"].values()) == manifest["rows"]["mmar"]
    assert set(manifest["seconds"]["train"]) == {"speech", "sound", "music"}
    assert "espeak-ng" in manifest["versions"] and "GPL" in manifest["licence"]


def test_a_finished_corpus_is_reused_and_never_lost(root: Path, tmp_path: Path) -> None:
    before = contents(root)
    assert build(root, SETTINGS).reused
    with pytest.raises(DataError, match="--overwrite"):
        build(root, Settings(48, 30, seed=7))
    assert contents(root) == before
    (tmp_path / "mine.txt").write_text("not a corpus")
    with pytest.raises(DataError, match="not a demo corpus"):
        build(tmp_path, SETTINGS, overwrite=True)


def test_overwrite_replaces_and_a_failure_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "render", lambda scene, seed: np.full(38_400, 0.01 * (1 + seed)))  # seconds saved
    folder, other = tmp_path / "corpus", Settings(30, 30, seed=1)
    build(folder, Settings(30, 30, seed=0), workers=1)
    before = contents(folder)
    with monkeypatch.context() as patch:
        patch.setattr(corpus.formats, "write_test", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            build(folder, other, workers=1, overwrite=True)
    assert contents(folder) == before and [path.name for path in tmp_path.iterdir()] == ["corpus"]
    assert not build(folder, other, workers=1, overwrite=True).reused
    assert json.loads((folder / MANIFEST).read_text())["settings"]["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
