"""Word errors, their rates, and recognisers of the real classes with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from alm.data.example import DataError
from alm.scoring.sound.base import MetricUnavailable, Pair
from alm.scoring.speech.recognition import PARAFORMER, find_recogniser, is_ctranslate2, load_recogniser
from alm.scoring.speech.words import WordErrors, WordScorer, rates, read_transcripts, word_counter, word_scorer

pytest.importorskip("jiwer")
pytest.importorskip("whisper_normalizer")


@pytest.mark.parametrize(
    ("said", "heard", "errors", "words"),
    [
        ("The cat sat.", "the cat sat", 0, 3),
        ("the cat sat", "the hat sat down", 2, 3),
        ("fifty cats", "50 cats", 0, 2),  # Whisper's normaliser writes numbers as digits
        ("It's colour", "it is color", 0, 3),
        ("hear the cat", "", 3, 3),
        ("", "hello there", 2, 0),
        ("[noise]", "", 0, 0),
    ],
)
def test_errors_are_counted_in_whispers_form(said: str, heard: str, errors: int, words: int) -> None:
    assert word_counter()(said, heard) == (errors, words)


def test_rates_are_of_all_words_and_of_clips() -> None:
    found = rates([WordErrors(1, 1), WordErrors(0, 9), WordErrors(2, 0)])
    assert found["wer_corpus"].value == pytest.approx(3 / 10)
    assert found["wer_macro"].value == pytest.approx(1 / 2)
    assert found["wer_corpus"].low <= 0.3 <= found["wer_corpus"].high
    assert rates([WordErrors(1, 0)]) == {}


def test_the_original_is_heard_beside_the_copy() -> None:
    levels = {1.0: "hello", 0.5: "yellow"}
    scorer = WordScorer({"a": "hello"}, lambda wave: levels[float(wave[0])], word_counter(), "levels")
    pair = Pair(np.full(16_000, 1.0, np.float32), 16_000, np.full(16_000, 0.5, np.float32), 16_000)
    row = scorer.row("folder/a", pair)
    assert row == {
        "said": "hello",
        "made": {"heard": "yellow", "errors": 1, "words": 1},
        "original": {"heard": "hello", "errors": 0, "words": 1},
    }
    assert scorer.row("b", pair) is None
    assert "original" not in (scorer.row("a", pair, originals=False) or {})


def test_transcripts_are_checked(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("file_name,text\nx/a.wav,one\nb.flac,two\n")
    assert read_transcripts(table) == {"a": "one", "b": "two"}
    table.write_text("file_name,text\na.wav,one\nb/a.wav,two\n")
    with pytest.raises(DataError, match="two texts for files called a"):
        read_transcripts(table)
    table.write_text("file_name,caption\na.wav,one\n")
    with pytest.raises(DataError, match="file_name and text"):
        read_transcripts(table)
    with pytest.raises(DataError, match="No such file"):
        read_transcripts(tmp_path / "none.csv")


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    assert "--transcripts" in str(word_scorer(None, "any"))
    with pytest.raises(MetricUnavailable, match="hf download nobody/nothing"):
        find_recogniser("nobody/nothing")


def test_whisper_of_transformers(tmp_path: Path) -> None:
    """The real class, tiny and random: greedy text, the same twice, the same alone and after another clip."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    torch.manual_seed(0)
    times = ["<notimestamps>", *(f"<|{i / 50:.2f}|>" for i in range(1501))]
    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(28)), *times])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    config = WhisperConfig(
        **{"vocab_size": len(words), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_mel_bins": 80},
        **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        max_target_positions=12,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    timing = model.generation_config
    timing.no_timestamps_token_id, timing.max_initial_timestamp_index, timing.is_multilingual = 31, 50, False
    timing._from_model_config = False  # a generation configuration of its own, as a real checkpoint has
    model.save_pretrained(tmp_path)
    timing.save_pretrained(tmp_path)
    WhisperFeatureExtractor().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert not is_ctranslate2(tmp_path)
    table = tmp_path / "t.csv"
    table.write_text("file_name,text\na.wav,w1 w2\n")
    scorer = word_scorer(str(table), str(tmp_path))
    assert isinstance(scorer, WordScorer) and scorer.label.startswith(f"{tmp_path.name}, sha256 ")
    wave = np.random.default_rng(0).standard_normal((2, 16_000)).astype(np.float32) * 0.1
    first = scorer.hear(wave[0])
    scorer.hear(wave[1])
    assert first == scorer.hear(wave[0])
    assert set(first.split()) <= set(words)
    assert scorer.hear(wave[0][:100]) == ""
    two, three = (len(scorer.hear(np.tile(wave[0], seconds)).split()) for seconds in (31, 65))
    assert 0 < two < three  # windows of 30 s, all of them heard
    table.write_text("file_name,text\na.wav,w1 w3\n")  # another text: rows of the first are not taken over
    other = word_scorer(str(table), str(tmp_path))
    assert isinstance(other, WordScorer) and other.label != scorer.label
    before = find_recogniser(str(tmp_path)).label
    model.half().save_pretrained(tmp_path)  # as whisper-large-v3 is stored
    timing.save_pretrained(tmp_path)
    assert isinstance(load_recogniser(find_recogniser(str(tmp_path)))(wave[0]), str)
    WhisperForConditionalGeneration(config).save_pretrained(tmp_path)  # other weights, same configuration
    assert find_recogniser(str(tmp_path)).label != before


def test_an_encoder_with_ctc(tmp_path: Path) -> None:
    """The real class, tiny and random, against its own best path collapsed by hand."""
    torch.manual_seed(0)
    letters = ["<pad>", "|", *"abcdefgh", "<s>", "</s>", "<unk>"]
    (tmp_path / "vocab.json").write_text(json.dumps({letter: place for place, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    features = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**sizes, **features, vocab_size=len(letters), pad_token_id=0)).eval()
    torch.nn.init.normal_(model.lm_head.weight, std=3.0)
    model.save_pretrained(tmp_path)
    wave = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * np.linspace(0, 0.3, 16_000)
    wave = wave.astype(np.float32)
    with torch.inference_mode():
        best = model(**extractor(wave, sampling_rate=16_000, return_tensors="pt")).logits[0].argmax(-1).tolist()
    kept = [letters[place] for place, last in zip(best, [None, *best], strict=False) if place != last and place]
    heard = load_recogniser(find_recogniser(str(tmp_path)))(wave)
    assert heard == "".join(kept).replace("|", " ").strip() and heard


def test_pocketsphinx_hears_a_clip_alone_and_after_others(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    grammar = tmp_path / "words.jsgf"
    grammar.write_text("#JSGF V1.0;\ngrammar words;\npublic <words> = ( yes | no | seven )+ ;\n")
    found = find_recogniser(str(grammar))
    assert "words.jsgf, sha256 " in found.label and found.label != find_recogniser("pocketsphinx").label
    waves = np.random.default_rng(0).standard_normal((2, 16_000)).astype(np.float32) * 0.1
    hear = load_recogniser(found)
    first = hear(waves[0])
    hear(10 * waves[1])
    assert hear(waves[0]) == first
    with pytest.raises(MetricUnavailable, match="knows English alone"):
        load_recogniser(found, language="zh")


def test_what_is_missing_of_other_kinds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, install in (("pocketsphinx", "pocketsphinx>="), (PARAFORMER, "funasr\\[knf")):
        with pytest.raises(MetricUnavailable, match=f"pip install '{install}"):
            find_recogniser(name)


def test_chinese_in_whispers_form_is_counted_by_characters() -> None:
    assert word_counter("zh")("你好，世界。", "你好世") == (1, 4)
    assert word_counter("zh")("GPT 好", "gpt 好") == (0, 2 + 2)
