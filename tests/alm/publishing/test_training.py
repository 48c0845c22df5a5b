"""What a manifest tells the world: every number and digest, no place on the machine that made it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alm.data.example import DataError
from alm.publishing.training import describe, public, read_manifest, require_same

PART = st.text("abcXYZ019_- .", min_size=1, max_size=8).filter(lambda part: part.strip(". ") != "")
PATHS = st.builds(
    lambda parts, slash: slash + slash.join(parts), st.lists(PART, min_size=2, max_size=4), st.sampled_from("/\\")
)
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | PATHS,
    lambda inner: st.lists(inner) | st.dictionaries(PATHS, inner),
    max_leaves=8,
)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in [key, *leaves(inner)]]
    return [leaf for inner in value for leaf in leaves(inner)] if isinstance(value, list) else [value]


@given(VALUES)
def test_no_folder_survives_and_nothing_is_lost(value: Any) -> None:
    manifest = {"arguments": value, "command": "recipes/x.py --data /srv/a/b"}
    cleaned = public(manifest)
    assert "command" not in cleaned
    before, after = leaves(value), leaves(cleaned["arguments"])
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert new == old or ("/" not in new and "\\" not in new)
        assert new == old or old.replace("\\", "/").endswith("/" + new.partition(" #")[0])


def test_files_of_one_name_stay_apart_and_lists_become_numbers() -> None:
    cleaned = public(
        {"files": {"a/train.json": "1", "b/train.json": "2"}, "read": [{"missing_audio": ["x/1.wav", "x/2.wav"]}]}
    )
    assert cleaned == {"files": {"train.json": "1", "train.json #2": "2"}, "read": [{"missing_audio": 2}]}


def test_of_the_trainer_only_what_shapes_the_result() -> None:
    trainer = {"learning_rate": 1e-3, "output_dir": "runs/x", "hub_token": "<HUB_TOKEN>", "run_name": "mine", "seed": 1}
    assert public({"trainer": trainer}) == {"trainer": {"learning_rate": 1e-3, "seed": 1}}


def test_no_manifest_is_said_and_another_run_s_is_refused(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None and describe(None).startswith("Not stated")
    (tmp_path / "manifest.json").write_text(json.dumps({"vocabulary": "ab"}))
    manifest = read_manifest(tmp_path)
    require_same(manifest, "vocabulary", "ab", tmp_path)
    with pytest.raises(DataError, match="its vocabulary is ab, the folder's cd"):
        require_same(manifest, "vocabulary", "cd", tmp_path)


@pytest.mark.parametrize(("revision", "told"), [(None, "base"), ("ab12", "team/base")])
def test_the_base_is_named_by_its_hub_id_or_its_folders_last_part(revision: str | None, told: str) -> None:
    base = {"name": "team/base", "revision": revision, "weights": {"model.safetensors": "00ff"}}
    cleaned = public({"base_model": base})
    assert cleaned["base_model"] == {**base, "name": told}
    at = " at ab12" if revision else ""
    assert f"- began from: `{told}`{at} (`model.safetensors` 00ff)" in describe(cleaned)
