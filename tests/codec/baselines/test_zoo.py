"""From names and folders to codecs."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from codec.base import Codec
from codec.entangle import CheckpointError, EntangleCodec
from codec.zoo import BASELINES, UnknownCodecError, _adapter, load_codec


def test_the_eight_baselines_of_the_paper() -> None:
    """Tables 1–3: their names, and the codebooks that each runs with there."""
    points = {name: entry.paper for name, entry in BASELINES.items()}
    assert points == {
        "dac": (1,), "encodec": (1,), "mimi": (4,), "xcodec": (1,), "xcodec2": (1,), "speechtokenizer": (1, 8), "wavtokenizer": (1,),
        "xy-tokenizer": (8,),
    }  # fmt: skip
    for entry in BASELINES.values():
        adapter = _adapter(entry.adapter)
        assert not inspect.isabstract(adapter)
        members = {name for name in dir(Codec) if not name.startswith("_")}
        assert members - {"sampling_rate", "frame_rate", "num_codebooks", "codebook_size"} <= set(dir(adapter))


def test_an_entangle_codec_still_loads(model: Any, tmp_path: Path) -> None:
    EntangleCodec(model.codec).save_pretrained(tmp_path)
    assert isinstance(load_codec(tmp_path), EntangleCodec)
    assert isinstance(load_codec(str(tmp_path), "cpu", num_codebooks=1), EntangleCodec)
    with pytest.raises(UnknownCodecError, match="one codebook, got num_codebooks=2"):
        load_codec(tmp_path, num_codebooks=2)
    with pytest.raises(UnknownCodecError, match="does not take checkout"):
        load_codec(tmp_path, checkout="somewhere")


def test_a_folder_is_told_by_its_model_type(name: str, folder: Path) -> None:
    assert type(load_codec(folder)).__name__ == BASELINES[name].adapter.partition(".")[2]
    with pytest.raises(UnknownCodecError, match="does not take checkpoint; options: revision"):
        load_codec(folder, checkpoint="weights.pt")


def test_a_folder_is_meant_where_one_has_a_baselines_name(
    folder_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mimi").symlink_to(folder_of("dac"))
    monkeypatch.chdir(tmp_path)
    assert type(load_codec("mimi")).__name__ == "DacCodec"


def test_what_is_no_codec_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(UnknownCodecError, match=r"no codec is called opus.*dac, encodec, mimi"):
        load_codec("opus")
    with pytest.raises(CheckpointError, match="holds no codec"):
        load_codec(tmp_path)
    with pytest.raises(CheckpointError, match="nor a Hub id"):
        load_codec("someone/something")
    for known in ("dac", "mimi"):  # offline, and not in the cache: the id that it looked for is in the message
        with pytest.raises(CheckpointError, match=BASELINES[known].hub_id):
            load_codec(known, revision="no-such-revision")


def test_a_description_that_names_no_codec_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "codec.yaml"
    for text in ("checkout: somewhere\n", "- mimi\n", "codec: [\n"):
        file.write_text(text)
        with pytest.raises(UnknownCodecError, match=r"describes no codec|description of a codec"):
            load_codec(file)
