import json
from pathlib import Path

import pytest

from alm.data import compa_r
from alm.data.example import DataError, ReadReport

ROW = {"audio_id": "./compa_r_train_audios/-x1.wav", "instruction": "Why the hurry?", "output": "A siren nears. "}


def write(folder: Path, rows: object) -> Path:
    (folder / "compa_r_train_audios").mkdir(exist_ok=True)
    (folder / "compa_r_train_audios" / "-x1.wav").touch()
    path = folder / "compa_r_train.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_reads_audio_and_text_only_rows(tmp_path: Path) -> None:
    report = ReadReport("compa_r")
    rows = [ROW, {**ROW, "audio_id": "empty", "input": "It rains.", "dataset": "d", "task": "t"}]
    heard, silent = compa_r.read(write(tmp_path, rows), tmp_path, report)
    assert heard.audio_paths() == [str(tmp_path / "compa_r_train_audios" / "-x1.wav")]
    assert heard.messages[1]["content"][0]["text"] == "A siren nears."
    assert silent.messages[0]["content"] == [{"type": "text", "text": "Why the hurry?\nIt rains."}]
    assert silent.meta == {"audio_id": "empty", "dataset": "d", "task": "t"}
    assert (report.rows, report.examples) == (2, 2)


def test_the_audio_folder_itself_may_be_given(tmp_path: Path) -> None:
    (example,) = compa_r.read(write(tmp_path, [ROW]), tmp_path / "compa_r_train_audios")
    assert Path(example.audio_paths()[0]).is_file()


def test_the_test_form_gives_one_example_per_instruction(tmp_path: Path) -> None:
    pairs = [{"instruction": "Where?", "output": "At sea."}, {"instruction": "When?", "output": "At night."}]
    row = {
        "audio_id": ROW["audio_id"],
        "caption": "waves",
        "timestamp_events": "(Waves-0.0-9.9)",
        "instruction_output": pairs,
    }
    examples = list(compa_r.read(write(tmp_path, [row]), tmp_path))
    assert [example.id for example in examples] == ["compa_r_train:1:1", "compa_r_train:1:2"]
    assert examples[1].meta["caption"] == "waves"


def test_empty_outputs_are_dropped_and_counted(tmp_path: Path) -> None:
    report = ReadReport("compa_r")
    assert list(compa_r.read(write(tmp_path, [{**ROW, "output": " "}]), tmp_path, report)) == []
    assert dict(report.dropped) == {"empty instruction or output": 1}


@pytest.mark.parametrize("broken", [{"audio_id": None}, {"output": None}, {"instruction_output": ["x"]}, {"input": 3}])
def test_malformed_rows_name_the_row(tmp_path: Path, broken: dict) -> None:
    with pytest.raises(DataError, match="row 2"):
        list(compa_r.read(write(tmp_path, [ROW, {**ROW, **broken}]), tmp_path))
