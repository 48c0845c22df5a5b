"""The written grammars accept exactly what `AudioGrammar` allows: xgrammar by its masks, GBNF by a translation to a regular expression."""

import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from alm.checkpoint import LoadedCheckpoint
from alm.data.example import DataError
from alm.generation.grammar import AudioGrammar, TurnState, text_ids
from alm.serving.grammars import _numbers_below, ebnf, gbnf, reply_grammar
from alm.vocabulary import AudioVocabulary

same_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
GRAMMARS = [
    {"min_frames": 2, "max_frames": 3},
    {"min_frames": 1, "max_frames": 1, "max_spans": 2},
    {"min_frames": 1, "max_frames": 2, "text": True},
    {"min_frames": 2, "max_frames": 2, "text": True, "max_spans": 2},
    {"text": True, "max_spans": 0},
]


def pattern(rules: str, vocabulary: AudioVocabulary) -> re.Pattern[str]:
    """GBNF without recursion as a regular expression over the reply's text, special tokens shown."""
    ids = {vocabulary.start_id: "<|audio_start|>", vocabulary.end_id: "<|audio_end|>"}
    named = dict(line.split(" ::= ") for line in rules.strip().splitlines())

    def translate(body: str) -> str:
        parts = re.findall(r'"[^"]*"|<\[\d+\]>|\[[^\]]*\]|[a-z]+|[*+|()]|\{[^}]*\}| ', body)
        assert "".join(parts) == body, f"not translated: {body}"
        return "".join(map(one, parts))

    def one(part: str) -> str:
        if part == " ":
            return ""
        if part[0] == '"':
            return f"(?:{re.escape(part[1:-1])})"
        if part[:2] == "<[":
            return re.escape(ids[int(part[2:-2])])
        return f"(?:{translate(named[part])})" if part.isalpha() else part

    return re.compile(translate("root"), re.DOTALL)


@pytest.mark.parametrize("size", [1, 2, 9, 10, 11, 64, 99, 100, 101, 1000, 1024, 16_384, 65_536])
def test_numbers_below(size: int) -> None:
    match = re.compile("|".join(part.replace('"', "").replace(" ", "") for part in _numbers_below(size))).fullmatch
    near = {*range(min(size + 200, 2000)), *range(max(0, size - 300), size + 300), 10 * size, 10**6}
    assert all((match(str(n)) is not None) == (n < size) for n in near)
    assert not match("00") and not match("01") and not match("")


@pytest.mark.parametrize("options", GRAMMARS, ids=str)
@pytest.mark.parametrize("num_codebooks", [1, 2])
@same_fixture
@given(data=st.data())
def test_gbnf_is_the_grammar(
    make_vocabulary: Callable[..., AudioVocabulary], options: dict[str, Any], num_codebooks: int, data: Any
) -> None:
    vocabulary = make_vocabulary(num_codebooks, codebook_size=3)
    grammar = AudioGrammar(vocabulary, **options)
    names = {vocabulary.start_id: "<|audio_start|>", vocabulary.end_id: "<|audio_end|>"}
    names |= {vocabulary.first_id + i: name for i, name in enumerate(vocabulary.tokens())} | {0: "a", 1: "<", 2: "|"}
    ids = walk(grammar, data, sorted(names))
    text = "".join(names[i] for i in ids)
    assume("<|" not in "".join(names[i] if i < 3 else " " for i in ids))  # which GBNF refuses in text, on purpose
    allowed = all(table_row(grammar, ids[:n], TEXT)[i] for n, i in enumerate(ids))
    finished = allowed and bool(table_row(grammar, ids, TEXT)[vocabulary.stop_id])
    assert (pattern(gbnf(grammar), vocabulary).fullmatch(text) is not None) == finished


TEXT = torch.zeros(200, dtype=torch.bool)
TEXT[[0, 1, 2, 39]] = True


def table_row(grammar: AudioGrammar, ids: list[int], text: torch.Tensor) -> torch.Tensor:
    """Which ids `(V,)` the reference allows after `ids`."""
    state = TurnState.of(grammar, torch.tensor([[0, *ids]]), prompt_length=1)
    return grammar.table(text[: grammar.vocabulary.rows])[state.phases()[0]]


def walk(grammar: AudioGrammar, data: Any, known: list[int]) -> list[int]:
    """A reply that mostly follows the grammar, so that long ones are reached, and sometimes breaks it."""
    ids: list[int] = []
    for _ in range(data.draw(st.integers(0, 12))):
        right = [i for i in known if table_row(grammar, ids, TEXT)[i]]
        ids.append(data.draw(st.sampled_from(right if right and data.draw(st.integers(0, 9)) else known)))
    return ids


@pytest.mark.parametrize("options", GRAMMARS, ids=str)
@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_xgrammar_allows_the_same_ids(
    make_language_model: Callable[..., LoadedCheckpoint],
    make_toy_codec: Any,
    options: dict[str, Any],
    num_codebooks: int,
) -> None:
    xgrammar = pytest.importorskip("xgrammar")
    processor = make_language_model(make_toy_codec(num_codebooks, 8)).processor
    vocabulary = processor.vocabulary
    grammar = AudioGrammar(vocabulary, **options)
    info = xgrammar.TokenizerInfo.from_huggingface(processor.tokenizer, vocab_size=vocabulary.rows)
    compiled = xgrammar.GrammarCompiler(info, max_threads=1).compile_grammar(ebnf(grammar))
    text = text_ids(processor.tokenizer, vocabulary)
    random = np.random.default_rng(0)
    for _ in range(20):
        matcher, ids = xgrammar.GrammarMatcher(compiled), []
        for _ in range(16):
            ours = set(torch.nonzero(table_row(grammar, ids, text))[:, 0].tolist())
            assert mask(xgrammar, matcher, vocabulary.rows) == ours, ids
            # audio half of the time, or spans would hardly ever come
            audio = sorted(ours - set(torch.nonzero(text)[:, 0].tolist()))
            choice = audio if audio and random.random() < 0.5 else sorted(ours - {vocabulary.stop_id})
            if not choice:
                break
            ids.append(int(random.choice(choice)))
            assert matcher.accept_token(ids[-1])


def mask(xgrammar: Any, matcher: Any, rows: int) -> set[int]:
    bits = xgrammar.allocate_token_bitmask(1, rows)
    matcher.fill_next_token_bitmask(bits)
    return set(np.flatnonzero(np.unpackbits(bits[0].numpy().view(np.uint8), bitorder="little")[:rows]).tolist())


def test_sixteen_thousand_codes_stay_cheap(make_vocabulary: Callable[..., AudioVocabulary]) -> None:
    grammar = AudioGrammar(make_vocabulary(1, 16_384, text_ids=151_669), min_frames=25, max_frames=1500)
    start = time.perf_counter()
    assert len(gbnf(grammar)) < 400 and len(gbnf(grammar).splitlines()) == 4
    assert len(ebnf(grammar)) < 120_000 and len(ebnf(grammar).splitlines()) == 4
    assert time.perf_counter() - start < 1


def test_limits_in_seconds_are_kept(make_vocabulary: Callable[..., AudioVocabulary]) -> None:
    grammar = reply_grammar(make_vocabulary(), min_seconds=0.58, max_seconds=1.01)
    assert (grammar.min_frames, grammar.max_frames) == (29, 50)
    assert reply_grammar(make_vocabulary(), min_seconds=0.57).min_frames == 29
    assert reply_grammar(make_vocabulary(), min_seconds=0.0).min_frames == 1
    for wrong in (
        {"min_seconds": 2, "max_seconds": 1},
        {"max_seconds": 0.01},
        {"max_seconds": float("inf")},
        {"spans": 0},
    ):
        with pytest.raises(DataError, match="a frame is"):
            reply_grammar(make_vocabulary(), **wrong)
