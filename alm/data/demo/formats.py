"""The demo corpus on disk, in the real data sets' own formats, so that it goes through the very readers that real data goes through.

Under the corpus root: `musicqa/` (MusicQA JSON), `clothoaqa/` (ClothoAQA CSV), `compa_r/` (COMPA-R JSON), `libritts/` (LibriTTS
tree), `audiocaps/` (AudioCaps CSV), `mmar/` (MMAR JSON lines: the test set) and `captions.csv` (every training clip once). The test
set's questions stand in the other benchmarks' test files, too, about the clips in `mmar/audio/`; its sounds' captions in AudioCaps'.
"""

import base64
import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alm.data.demo.captions import caption
from alm.data.demo.lexicon import ACCENTS, VOICES
from alm.data.demo.questions import KINDS, Question
from alm.data.demo.scenes import Deck, Scene

MUSICQA, MUSICQA_AUDIO = "musicqa/FinetuneMusicQA.json", "musicqa/audios"
CLOTHOAQA, CLOTHOAQA_AUDIO = "clothoaqa/clotho_aqa_train.csv", "clothoaqa/audio_files"
COMPA_R, COMPA_R_AUDIO = "compa_r/compa_r_train.json", "compa_r/compa_r_train_audios"
AUDIOCAPS, AUDIOCAPS_AUDIO = "audiocaps/train.csv", "audiocaps/audio"
MMAR, MMAR_AUDIO = "mmar/MMAR-meta.jsonl", "mmar/audio"
MMAU, CLOTHOAQA_TEST = "mmau/mmau-test-mini.json", "clothoaqa/clotho_aqa_test.csv"
MUSICQA_TEST, AUDIOCAPS_TEST = "musicqa/EvalMusicQA.json", "audiocaps/test.csv"
LIBRITTS, CAPTIONS = "libritts/train-clean-100", "captions.csv"

CLOTHOAQA_COLUMNS = ("file_name", "QuestionText", "answer", "confidence")
AUDIOCAPS_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")

DESCRIBE = "Describe the audio"
"""Asked once of every training clip, as MusicQA asks it; the answer is the clip's caption."""
SPEECH_RATE, FULL_RATE = 16_000, 24_000
"""Hz. COMPA-R's audio is at 16 kHz, the others' at 24; test speech is at 16 kHz like the training speech (MMAR's rates are mixed)."""


@dataclass(frozen=True)
class Files:
    """Where a clip lies, relative to the root: files to write with their sampling rates, and links `(new name, written name)`."""

    written: tuple[tuple[str, int], ...]
    links: tuple[tuple[str, str], ...] = ()


def youtube_id(name: str) -> str:
    """Eleven characters as a YouTube id has them (one in 64 begins with "-", as in the real AudioCaps)."""
    return base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest())[:11].decode()


def row_id(question: Question) -> str:
    """MMAR's `id`, unique per question."""
    return f"{question.scene.id}_{question.kind}"


def is_read_speech(scene: Scene) -> bool:
    """Whether the clip belongs in the LibriTTS tree: one speaker, one sentence, no room, no noise."""
    return scene.form in ("word", "pace") and not scene.facts["room"]


def libritts_stem(scene: Scene) -> str:
    """`<speaker>/<chapter>/<speaker>_<chapter>_<number>_000000` below the tree's split."""
    who = scene.facts["speakers"][0]
    variants = [voice.variant for voices in VOICES.values() for voice in voices]
    speaker = 9_000 + 10 * variants.index(who["variant"]) + list(ACCENTS).index(who["accent"])
    chapter = {"word": 1001, "pace": 1002}[scene.form]
    number = int(scene.id.rsplit("_", 1)[1])
    return f"{LIBRITTS}/{speaker}/{chapter}/{speaker}_{chapter}_{number:06d}_000000"


def files_of(scene: Scene, questions: list[Question]) -> Files:
    """The files of a clip that is asked `questions`. The first written file is the one that questions refer to."""
    name = f"{scene.id}.wav"
    if scene.split == "test":
        first, *more = [f"{MMAR_AUDIO}/{row_id(question)}.wav" for question in questions]
        rate = SPEECH_RATE if scene.domain == "speech" else FULL_RATE
        if scene.domain == "sound":
            more.append(f"{AUDIOCAPS_TEST.removesuffix('.csv')}/{youtube_id(scene.id)}.wav")
        return Files(((first, rate),), tuple((other, first) for other in more))
    if scene.domain == "speech":
        main = (f"{COMPA_R_AUDIO}/{name}", SPEECH_RATE)
        return Files((main, (f"{libritts_stem(scene)}.wav", FULL_RATE)) if is_read_speech(scene) else (main,))
    if scene.domain == "music":
        return Files(((f"{MUSICQA_AUDIO}/{name}", FULL_RATE),))
    main_name = f"{CLOTHOAQA_AUDIO}/{name}"
    others = (f"{COMPA_R_AUDIO}/{name}", f"{AUDIOCAPS_AUDIO}/{youtube_id(scene.id)}.wav")
    return Files(((main_name, FULL_RATE),), tuple((other, main_name) for other in others))


def write_training(root: Path, scenes: list[Scene], questions: list[Question], seed: int) -> dict[str, int]:
    """Write every training file below `root`; returns the number of rows of each.

    Each question is asked once, half of each kind bare and half with its choices. Sound questions are bare in ClothoAQA (whose
    answers are single words) and with choices in COMPA-R; speech is all in COMPA-R, music all in MusicQA. Each clip is described once,
    music in MusicQA, the rest in COMPA-R.
    """
    with_choices = _forms(questions, seed)
    musicqa: list[dict[str, Any]] = []
    clothoaqa: list[tuple[str, ...]] = []
    compa_r: list[dict[str, Any]] = []
    for question, offered in zip(questions, with_choices, strict=True):
        name, text = f"{question.scene.id}.wav", question.prompt if offered else question.text
        if question.scene.domain == "music":
            turns = [{"from": "human", "value": text}, {"from": "gpt", "value": question.answer}]
            musicqa.append({"audio_name": name, "conversation": turns})
        elif question.scene.domain == "sound" and not offered:
            clothoaqa += _annotated(name, question)
        else:
            path, source = f"./{Path(COMPA_R_AUDIO).name}/{name}", f"demo-{question.scene.domain}"
            answer = {"instruction": text, "input": "", "output": question.answer}
            compa_r.append({"audio_id": path, **answer, "dataset": source, "task": question.kind})
    for scene in scenes:
        name, told = f"{scene.id}.wav", caption(scene)
        if scene.domain == "music":
            turns = [{"from": "human", "value": DESCRIBE}, {"from": "gpt", "value": told}]
            musicqa.append({"audio_name": name, "conversation": turns})
        else:
            path, source = f"./{Path(COMPA_R_AUDIO).name}/{name}", f"demo-{scene.domain}"
            answer = {"instruction": DESCRIBE, "input": "", "output": told}
            compa_r.append({"audio_id": path, **answer, "dataset": source, "task": "description"})
    _json(root / MUSICQA, musicqa)
    _csv(root / CLOTHOAQA, CLOTHOAQA_COLUMNS, clothoaqa)
    _json(root / COMPA_R, compa_r)
    rows = _audiocaps(root / AUDIOCAPS, scenes)
    spoken = [scene for scene in scenes if is_read_speech(scene)]
    for scene in spoken:
        for suffix in ("original", "normalized"):  # alike: no number or abbreviation to spell out
            (root / f"{libritts_stem(scene)}.{suffix}.txt").write_text(scene.facts["text"], encoding="utf-8")
    # read speech is listed by its LibriTTS file, which has the full band
    listed = [(files_of(scene, []).written[-1][0], caption(scene)) for scene in scenes]
    _csv(root / CAPTIONS, ("file_name", "caption"), listed)
    names = ("musicqa", "clothoaqa", "compa_r", "audiocaps", "libritts", "captions")
    counts = (len(musicqa), len(clothoaqa), len(compa_r), rows, len(spoken), len(listed))
    return dict(zip(names, counts, strict=True))


def write_test(root: Path, questions: list[Question], seconds: Mapping[str, float]) -> int:
    """Write MMAR's JSON lines below `root`; `seconds` is the length of each clip by scene id. Returns the number of rows.

    The kind of question stands in `sub-category`, and under a key of its own, `kind`.
    """
    rows = []
    for question in questions:
        end = round(seconds[question.scene.id])
        rows.append(
            {
                "id": row_id(question),
                "audio_path": f"./audio/{row_id(question)}.wav",
                "question": question.text,
                "choices": list(question.choices),
                "answer": question.answer,
                "modality": question.modality,
                "category": KINDS[question.kind].layer,
                "sub-category": question.kind,
                "language": "en" if question.scene.domain == "speech" else None,
                "source": "synthesised",
                "url": "",
                "timestamp": f"00:00:00,00:00:{end:02d}",
                "kind": question.kind,
            }
        )
    (root / MMAR).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def write_other_tests(root: Path, scenes: list[Scene], questions: list[Question]) -> dict[str, int]:
    """Write the test questions as MMAU (all), ClothoAQA (sounds) and MusicQA (music), and the sounds' captions as AudioCaps.

    Returns the number of rows of each.
    """
    mmau: list[dict[str, Any]] = [
        {
            "id": row_id(question),
            "audio_id": f"./test-mini-audios/{row_id(question)}.wav",
            "question": question.text,
            "choices": list(question.choices),
            "answer": question.answer,
            "dataset": "synthesised",
            "task": question.scene.domain,
            "split": "test-mini",
            "category": KINDS[question.kind].layer,
            "sub-category": question.kind,
            "difficulty": "hard" if KINDS[question.kind].hard else "easy",
        }
        for question in questions
    ]
    music = [
        {
            "audio_name": f"{row_id(question)}.wav",
            "conversation": [{"from": "human", "value": question.text}, {"from": "gpt", "value": question.answer}],
        }
        for question in questions
        if question.scene.domain == "music"
    ]
    sounds = [row for q in questions if q.scene.domain == "sound" for row in _annotated(f"{row_id(q)}.wav", q)]
    (root / MMAU).parent.mkdir(exist_ok=True)
    _json(root / MMAU, mmau)
    _json(root / MUSICQA_TEST, music)
    _csv(root / CLOTHOAQA_TEST, CLOTHOAQA_COLUMNS, sounds)
    captions = _audiocaps(root / AUDIOCAPS_TEST, scenes)
    names = ("mmau", "musicqa_test", "clothoaqa_test", "audiocaps_test")
    return dict(zip(names, (len(mmau), len(music), len(sounds), captions), strict=True))


def _annotated(name: str, question: Question) -> list[tuple[str, ...]]:
    """Three annotators, all of one mind and sure."""
    return [(name, question.text, question.answer, "yes")] * 3


def _audiocaps(path: Path, scenes: list[Scene]) -> int:
    """Write the captions of the sounds among the scenes; returns their number."""
    sounds = [scene for scene in scenes if scene.domain == "sound"]
    rows = [(str(i), youtube_id(scene.id), "0", caption(scene)) for i, scene in enumerate(sounds)]
    _csv(path, AUDIOCAPS_COLUMNS, rows)
    return len(rows)


def _forms(questions: list[Question], seed: int) -> list[bool]:
    """Whether each question is asked with its choices: half of each kind."""
    decks = {}
    for kind in KINDS:
        count = sum(question.kind == kind for question in questions)
        decks[kind] = iter(Deck(seed, f"forms/{kind}").deal((True, False), count))
    return [next(decks[question.kind]) for question in questions]


def _json(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")


def _csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
