"""Lists of captions in their published forms."""

import json
import os
from pathlib import Path

import pytest

from alm.data.caption_lists import others, read
from alm.data.example import DataError

REAL = Path(os.environ.get("READERS_METADATA", "metadata"))
AUDIOCAPS = """audiocap_id,youtube_id,start_time,caption
11,-ab,30,a dog barks
12,-ab,30,"a dog, barking"
13,cd,0,rain
14,cd,0,rain falls
"""
CLOTHO = """file_name,caption_1,caption_2,caption_3,caption_4,caption_5
a bell .wav,one,two,three,four,five
wind &quot;x&quot;.wav,six,seven,eight,nine,ten
"""


@pytest.fixture
def audiocaps(tmp_path: Path) -> Path:
    (path := tmp_path / "test.csv").write_text(AUDIOCAPS)
    return path


@pytest.fixture
def clotho(tmp_path: Path) -> Path:
    (path := tmp_path / "clotho.csv").write_text(CLOTHO)
    return path


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.touch()


def test_audiocaps(audiocaps: Path, tmp_path: Path) -> None:
    first, every = read(audiocaps), read(audiocaps, "all")
    assert [(item.id, item.caption) for item in first.items] == [("Y-ab", "a dog barks"), ("Ycd", "rain")]
    assert [(item.id, item.clip) for item in every.items] == [
        ("11", "Y-ab"),
        ("12", "Y-ab"),
        ("13", "Ycd"),
        ("14", "Ycd"),
    ]
    assert (first.name, every.name) == ("AudioCaps, first captions", "AudioCaps, all captions")
    assert first.sha256 == every.sha256 and len(read(audiocaps, "all", limit=3).items) == 3
    touch(tmp_path / "wavs" / "-ab_30.wav", tmp_path / "wavs" / "cd_0.wav", tmp_path / "wavs" / "13.flac")
    # a sound a clip may have the recording's name, a sound a caption may not
    assert first.recordings(tmp_path / "wavs").keys() == {"Y-ab", "Ycd"} == first.sounds(tmp_path / "wavs").keys()
    assert every.sounds(tmp_path / "wavs") == {"13": tmp_path / "wavs" / "13.flac"}


def test_clotho_names_are_kept_bit_for_bit(clotho: Path, tmp_path: Path) -> None:
    first, every = read(clotho), read(clotho, "all")
    assert [item.id for item in first.items] == ["a bell ", "wind &quot;x&quot;"]
    assert [item.id for item in every.items][4:6] == ["a bell _5", "wind &quot;x&quot;_1"]
    assert (first.name, len(every.items)) == ("Clotho, first captions", 10)
    touch(tmp_path / "wavs" / "a bell .wav", tmp_path / "wavs" / 'wind "x".wav')
    assert len(first.recordings(tmp_path / "wavs")) == 2


def test_other_peoples_lists(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"data": [{"wav": "/x/Y-ab.wav", "labels": "", "caption": "a dog"}]}, indent=1))
    found = read(path)
    assert found.items[0].id == "Y-ab"
    assert found.name == "AudioCaps (AudioLDM's list), one caption a clip"
    row = {"dataset": "audiocaps", "location": "data/test/-a_b_30.wav", "captions": "a dog"}
    path.write_text(json.dumps(row) + "\n")
    found = read(path)
    assert found.items[0].id == "Y-a_b" and found.name.startswith("AudioCaps (Tango's list)")
    touch(tmp_path / "wavs" / "-a_b_30.wav")
    assert found.recordings(tmp_path / "wavs").keys() == {"Y-a_b"}
    path.write_text(json.dumps([{"name": "one.wav", "caption": "a dog"}, {"name": "two", "caption": "rain"}]))
    assert [item.id for item in read(path).items] == ["one", "two"] and read(path).name == "list, one caption a clip"
    (tmp_path / "mine.csv").write_text("id,caption\none,a dog\n")
    assert read(tmp_path / "mine.csv").items[0].caption == "a dog"


def test_a_caption_of_another_clip(audiocaps: Path, clotho: Path) -> None:
    assert others(read(audiocaps).items) == {"Y-ab": "rain", "Ycd": "a dog barks"}
    assert others(read(audiocaps, "all").items) == {
        "11": "rain",
        "12": "rain falls",
        "13": "a dog barks",
        "14": "a dog, barking",
    }
    assert others(read(audiocaps, limit=1).items) == {}
    every = read(clotho, "all").items
    own = {clip: {item.caption for item in every if item.clip == clip} for clip in {item.clip for item in every}}
    assert all(caption not in own[item.clip] for item in every for caption in [others(every)[item.id]])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,caption\n../x,a dog\n", "cannot name a file"),
        ("id,caption\nx,\n", "'x' has no caption"),
        ("id,caption\n", "no captions in it"),
        ("id,text\nx,a dog\n", "'caption' must be text"),
        (AUDIOCAPS.replace("12,-ab", "11,-ab"), "'11' occurs twice"),
    ],
)
def test_other_forms_are_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=told):
        read(tmp_path / "x.csv", "all")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.json")


@pytest.mark.skipif(not (REAL / "audiocaps").is_dir(), reason="set READERS_METADATA to the released metadata")
@pytest.mark.parametrize(
    ("name", "first", "every"),
    [
        ("audiocaps/v1_test.csv", 975, 4_875),
        ("audiocaps/v1_val.csv", 495, 2_475),
        ("clotho/test.csv", 1_045, 5_225),
        ("clotho/val.csv", 1_045, 5_225),
        ("tta_prompts/audioldm_audiocaps_test_nonrepeat_subset_2.json", 964, 964),
    ],
)
def test_the_released_lists(name: str, first: int, every: int) -> None:
    assert len(read(REAL / name).items) == first and len(read(REAL / name, "all").items) == every
    items = read(REAL / name, "all").items
    own: dict[str, set[str]] = {}
    for item in items:
        own.setdefault(item.clip, set()).add(item.id)
    by_caption = others(items)
    assert by_caption.keys() == {item.id for item in items} and len(own) == first
