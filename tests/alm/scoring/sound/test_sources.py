"""Which clips a run takes, and which stored file belongs to which."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alm.data.example import DataError
from alm.scoring.sound.picture import spread
from alm.scoring.sound.projection import centre_distances, project
from alm.scoring.sound.sources import by_group, folder_clips, hub_clips, native_rate, pair_stored
from codec.audio import AudioError, write_audio


@pytest.fixture
def folders(tmp_path: Path) -> Any:
    for name in ("speech/a/1.wav", "speech/b/1.flac", "music/1.wav", "music/2.wav", "music/3.wav"):
        write_audio(tmp_path / name, np.full(160, 0.1, np.float32), 16_000)
    return tmp_path


def test_names_are_relative_and_groups_are_folders(folders: Path) -> None:
    clips = folder_clips([f"{folders}/speech", f"{folders}/music"])
    assert [clip.id for clip in clips] == ["speech/a/1", "speech/b/1", "music/1", "music/2", "music/3"]
    assert dict(by_group(clips)) == {"speech": 2, "music": 3}
    assert len(folder_clips([str(folders)], every=2)) == 3 and len(folder_clips([str(folders)], limit=2)) == 2
    assert [clip.id for clip in spread(clips, 3)] == ["speech/a/1", "speech/b/1", "music/2"]
    assert len(spread(clips, 50)) == 5
    same = folder_clips([f"{folders}/speech/a", f"{folders}/speech/a/../a"])
    assert len({clip.group for clip in same}) == 2
    write_audio(folders / "music/1.flac", np.full(160, 0.1, np.float32), 16_000)
    with pytest.raises(DataError, match="suffix only"):
        folder_clips([f"{folders}/music"])


def test_lists(folders: Path) -> None:
    listing = folders / "list.txt"
    listing.write_text(f"{folders}/speech/a/1.wav\n{folders}/speech/b/1.flac\n")
    assert [clip.name for clip in folder_clips([str(listing)])] == ["a/1", "b/1"]


def test_pairs(folders: Path, tmp_path: Path) -> None:
    clips = folder_clips([f"{folders}/speech", f"{folders}/music"])
    for name in ("speech/a/1.flac", "music/2.wav", "3.wav"):
        write_audio(tmp_path / "made" / name, np.full(160, 0.1, np.float32), 24_000)
    assert set(pair_stored(clips, f"{tmp_path}/made")) == {"speech/a/1", "music/2"}
    single = [clip for clip in clips if clip.group == "music"]
    assert set(pair_stored(single, f"{tmp_path}/made")) == {"music/2", "music/3"}
    write_audio(tmp_path / "made/3.flac", np.full(160, 0.1, np.float32), 24_000)
    with pytest.raises(DataError, match="one name"):
        pair_stored(single, f"{tmp_path}/made")


def test_rates(folders: Path) -> None:
    assert native_rate((folders / "music/1.wav").read_bytes(), "x") == 16_000
    with pytest.raises(AudioError, match="x: "):
        native_rate(b"no audio", "x")


def test_a_data_set(folders: Path, tmp_path: Path) -> None:
    import datasets

    data = [{"bytes": (folders / f"music/{n}.wav").read_bytes(), "path": f"{n}.wav"} for n in (1, 2, 3)]
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict({"audio": data}).to_parquet(tmp_path / "set" / "test.parquet")
    clips = list(hub_clips(f"{tmp_path}/set", None, "test", "audio"))
    assert [clip.id for clip in clips] == ["set/000000", "set/000001", "set/000002"]
    assert native_rate(clips[0].bytes(), "x") == 16_000
    assert [clip.name for clip in hub_clips(f"{tmp_path}/set", None, "test", "audio", every=2, limit=1)] == ["000000"]
    with pytest.raises(DataError, match="no column 'sound'"):
        list(hub_clips(f"{tmp_path}/set", None, "test", "sound"))
    with pytest.raises(DataError, match="cannot be opened"):
        list(hub_clips(f"{tmp_path}/set", None, "no_split", "audio"))


def test_pca_keeps_a_plane() -> None:
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 10)) + 3
    coordinates = project(flat, "pca")
    distances = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=-1)
    assert np.allclose(distances, np.linalg.norm(flat[:, None] - flat[None], axis=-1), atol=1e-4)
    assert np.array_equal(coordinates, project(flat, "pca"))
    with pytest.raises(DataError, match="umap or pca"):
        project(flat, "tsne")
    with pytest.raises(DataError, match="at least 8"):
        project(flat[:3], "pca")


def test_umap_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    with pytest.raises(DataError, match=r"pip install 'umap-learn.*--method pca"):
        project(np.eye(10), "umap")


def test_distances_of_centres() -> None:
    coordinates = np.array([[0, 0], [2, 0], [1, 3], [5, 5]], np.float32)
    found = centre_distances(coordinates, ["a", "a", "a", "b"], ["audio", "audio", "text", "audio"], "audio", "text")
    assert found == {"a": pytest.approx(3.0)}
