"""The tokenizer trained on the spot: lossless, reproducible, loaded by stock Transformers as Qwen's."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from alm.data.example import DataError
from alm.tokenizer import read_texts, train_tokenizer

TOKENIZER = train_tokenizer(["What sound is it?", "a dog barks"] * 4, 300)


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    import unicodedata

    assert TOKENIZER.decode(TOKENIZER.encode(text)) == unicodedata.normalize("NFC", text)


def test_reproducible_and_loadable(tmp_path: Path) -> None:
    again = train_tokenizer(["What sound is it?", "a dog barks"] * 4, 300)
    assert again.get_vocab() == TOKENIZER.get_vocab() and len(again) <= 300
    again.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\nWhat's it, 123?<|im_end|>"
    assert type(loaded).__name__ == "Qwen2Tokenizer" and loaded.encode(text) == TOKENIZER.encode(text)
    assert (loaded.eos_token, loaded.pad_token) == ("<|im_end|>", "<|endoftext|>")
    control = loaded.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    assert control == [len(loaded) - 3, len(loaded) - 2, len(loaded) - 1]


def test_small_vocabulary_is_refused() -> None:
    with pytest.raises(DataError, match="at least 259"):
        train_tokenizer(["a"], 258)


def test_read_texts(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"audio_name": "x.WAV", "turns": [{"value": "one"}], "n": 3}]))
    (tmp_path / "b.jsonl").write_text('{"q": "two"}\n\n{"q": ["three"]}\n')
    (tmp_path / "c.csv").write_text('file_name,q\n"y .wav","four, five"\n')
    (tmp_path / "d.txt").write_text("six\n\nseven\n")
    found = list(read_texts([tmp_path / "*.json", tmp_path / "b.jsonl", tmp_path / "c.csv", tmp_path / "d.txt"]))
    assert found == ["one", "two", "three", "file_name", "q", "four, five", "six", "seven"]
    with pytest.raises(DataError, match="no such file"):
        list(read_texts([tmp_path / "none*.json"]))
    (tmp_path / "e.json").write_text("{")
    with pytest.raises(DataError, match=r"e\.json"):
        list(read_texts([tmp_path / "e.json"]))
    (tmp_path / "f.xml").write_text("<a/>")
    with pytest.raises(DataError, match=r"\.jsonl"):
        list(read_texts([tmp_path / "f.xml"]))
