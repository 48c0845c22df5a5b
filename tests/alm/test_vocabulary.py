"""Codes ⇄ ids is a bijection for any codec's shape, and the contract knows its own edits."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alm.vocabulary import AudioVocabulary, ContractError

same_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
SHAPES = st.tuples(st.integers(1, 12), st.sampled_from([1, 2, 7, 1024, 16_384]))


@same_fixture
@given(SHAPES, st.integers(0, 200_000), st.integers(0, 9), st.randoms())
def test_codes_and_ids_are_one_to_one(
    make_vocabulary: Any, shape: Any, text_ids: int, frames: int, random: Any
) -> None:
    K, size = shape
    voc = make_vocabulary(K, size, text_ids=text_ids)
    codes = np.array([[random.randrange(size) for _ in range(frames)] for _ in range(K)], dtype=np.int64).reshape(K, -1)
    ids = voc.codes_to_ids(codes)
    assert ids.shape == (K * frames,) and all(voc.first_id <= i < voc.end for i in ids)
    assert np.array_equal(voc.ids_to_codes(ids), codes)
    assert np.array_equal(voc.codes_to_ids(voc.ids_to_codes(ids)), ids)
    # frame by frame: the ids of a beginning are the beginning of the ids
    assert np.array_equal(voc.codes_to_ids(codes[:, : frames // 2]), ids[: K * (frames // 2)])


@same_fixture
@given(st.integers(1, 5), st.integers(1, 40))
def test_every_id_is_one_code_of_one_codebook(make_vocabulary: Any, K: int, size: int) -> None:
    voc = make_vocabulary(K, size)
    frames = np.tile(np.arange(size), (K, 1))
    ids = voc.codes_to_ids(frames)
    assert sorted(ids) == list(range(voc.first_id, voc.end)) and len(set(ids)) == voc.size
    names = voc.tokens()
    assert len(set(names)) == voc.size
    assert [names[i - voc.first_id] for i in voc.codes_to_ids(frames[:, :1])] == [f"<|audio_{k}_0|>" for k in range(K)]


@same_fixture
@given(SHAPES, st.data())
def test_what_is_no_frame_is_refused(make_vocabulary: Any, shape: Any, data: st.DataObject) -> None:
    K, size = shape
    voc = make_vocabulary(K, size)
    ids = voc.codes_to_ids(np.zeros((K, 2), dtype=np.int64)).tolist()
    if K > 1:
        with pytest.raises(ValueError, match="not a whole number of frames"):
            voc.ids_to_codes(ids[:-1])
        with pytest.raises(ValueError, match="not an audio token of its codebook"):
            voc.ids_to_codes(ids[1:] + ids[:1])
    bad = data.draw(st.sampled_from([voc.first_id - 1, voc.end, 0, voc.end_id]))
    ids[data.draw(st.integers(0, 2 * K - 1))] = bad
    with pytest.raises(ValueError, match=f"id {bad} is not an audio token"):
        voc.ids_to_codes(ids)
    for wrong in (np.full((K, 1), size), np.full((K, 1), -1)):
        with pytest.raises(ValueError, match="codes must be in"):
            voc.codes_to_ids(wrong)
    with pytest.raises(ValueError, match="expected, got"):
        voc.codes_to_ids(np.zeros((K + 1, 1), dtype=np.int64))


def test_every_field_is_in_the_hash(make_vocabulary: Any) -> None:
    voc = make_vocabulary()
    assert AudioVocabulary.from_dict(voc.to_dict()) == voc
    for name, value in asdict(voc).items():
        other = replace(voc, **{name: not value if isinstance(value, bool) else value * 2 if value else 1})
        assert other.hash != voc.hash, name
        edited = {**voc.to_dict(), name: getattr(other, name)}
        with pytest.raises(ContractError, match="edited by hand"):
            AudioVocabulary.from_dict(edited)
        with pytest.raises(ContractError, match=f"lacks {name}"):
            AudioVocabulary.from_dict({key: entry for key, entry in voc.to_dict().items() if key != name})
