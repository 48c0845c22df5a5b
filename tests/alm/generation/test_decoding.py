"""Laws of generation: what comes out always decodes and ends, whatever the weights; sliced is full; a row is itself in any batch."""

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, LogitsProcessorList

from alm.checkpoint import LoadedCheckpoint
from alm.generation.decoding import GrammarDecoder, NoNumberError
from alm.generation.grammar import AudioGrammar, GrammarLogitsProcessor, TurnState, text_ids
from alm.generation.sampling import GREEDY, Sampler, Sampling, _with_float64

same_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
HOT = Sampling(temperature=1.5)
WARPED = Sampling(temperature=0.8, top_k=20, top_p=0.9, min_p=0.01)


@pytest.fixture(params=[1, 8], ids=["1 codebook", "8 codebooks"])
def loaded(request: Any, make_language_model: Any, make_toy_codec: Any) -> LoadedCheckpoint:
    K = request.param
    return make_language_model(codec=make_toy_codec(K, 64 // K))


def prompts(loaded: LoadedCheckpoint, texts: list[str]) -> list[list[int]]:
    return [
        loaded.processor.encode_messages([{"role": "user", "content": text}], add_generation_prompt=True)
        for text in texts
    ]


TEXTS = ["say it", "What sound is heard in the recording?", "a dog barks twice, then a bell rings"]


def check_turn(ids: list[int], grammar: AudioGrammar, stopped: bool) -> int:
    """Assert that a turn is in the grammar's language, by a reading of its own; returns spans cut by their longest length."""
    voc, K = grammar.vocabulary, grammar.vocabulary.num_codebooks
    rest, spans, cut = list(ids), 0, 0
    while rest:
        token = rest.pop(0)
        if token == voc.start_id:
            assert voc.end_id in rest or not stopped
            span = rest[: rest.index(voc.end_id)] if voc.end_id in rest else rest
            rest = rest[len(span) + 1 :]
            whole = span if len(span) % K == 0 else span[: -(len(span) % K)]
            codes = voc.ids_to_codes(whole)  # raises on a code of another codebook
            if stopped or rest:
                assert whole == span and grammar.min_frames <= codes.shape[1] <= grammar.max_frames
                spans, cut = spans + 1, cut + (codes.shape[1] == grammar.max_frames)
        elif token == voc.stop_id:
            assert not rest and stopped
        else:
            assert grammar.text and token < voc.start_id
    assert spans <= grammar.max_spans and (grammar.text or not stopped or spans == grammar.max_spans)
    return cut


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 4), st.booleans(), st.integers(1, 3))
def test_whatever_the_weights_a_turn_decodes_and_ends(
    loaded: LoadedCheckpoint, seed: int, least: int, more: int, text: bool, rows: int
) -> None:
    model, processor = loaded
    grammar = AudioGrammar(processor.vocabulary, least, least + more, text=text, max_spans=2)
    for sampling in (GREEDY, HOT):
        decoder = GrammarDecoder(model, processor.tokenizer, grammar, sampling)
        turns = decoder.turns(prompts(loaded, TEXTS[:rows]), 2 * grammar.max_span_ids + 1, range(seed, seed + rows))
        for turn in turns:
            forced = check_turn(turn.ids, grammar, turn.stopped)
            assert turn.stopped or text  # without text there is always room for the end
            assert turn.forced_ends == forced if turn.stopped else turn.forced_ends <= 2


@pytest.mark.parametrize("sampling", [GREEDY, HOT, WARPED], ids=["greedy", "sampled", "warped"])
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_sliced_is_full_and_alone_is_in_a_batch(
    loaded: LoadedCheckpoint, sampling: Sampling, text: bool, scale: float
) -> None:
    model, processor = loaded
    grammar = AudioGrammar(processor.vocabulary, 2, 6, text=text, max_spans=2)
    given, negative = prompts(loaded, TEXTS), prompts(loaded, [""] * 3) if scale != 1 else None

    def turns(sliced: bool, rows: slice) -> list[Any]:
        decoder = GrammarDecoder(model, processor.tokenizer, grammar, sampling, scale, sliced)
        return decoder.turns(given[rows], 40, range(3)[rows], negative and negative[rows])

    together = turns(True, slice(0, 3))
    assert together == turns(False, slice(0, 3))
    assert together == [turns(True, slice(i, i + 1))[0] for i in range(3)]
    if sampling is not GREEDY:
        assert len({tuple(turn.ids) for turn in together}) > 1


@pytest.mark.parametrize("text", [False, True])
def test_the_plain_generate_path_gives_the_same(loaded: LoadedCheckpoint, text: bool) -> None:
    """Independent reference: Transformers' own loop, with the grammar as a logits processor."""
    model, processor = loaded
    grammar = AudioGrammar(processor.vocabulary, 2, 5, text=text, max_spans=2)
    for prompt in prompts(loaded, TEXTS):
        ids = torch.tensor([prompt])
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=30,
            eos_token_id=grammar.vocabulary.stop_id,
            pad_token_id=grammar.vocabulary.pad_id,
        )
        processors = LogitsProcessorList([GrammarLogitsProcessor(grammar, processor.tokenizer, ids.shape[1])])
        plain = model.generate(ids, generation_config=config, logits_processor=processors)[0, ids.shape[1] :].tolist()
        (turn,) = GrammarDecoder(model, processor.tokenizer, grammar).turns([prompt], 30)
        assert turn.ids == plain
        beams = model.generate(ids, generation_config=config, logits_processor=processors, num_beams=3)
        answer = beams[0, ids.shape[1] :].tolist()
        check_turn(answer, grammar, answer[-1] == grammar.vocabulary.stop_id)


def test_guidance_is_transformers_own(loaded: LoadedCheckpoint) -> None:
    from transformers import UnbatchedClassifierFreeGuidanceLogitsProcessor

    model, processor = loaded
    grammar = AudioGrammar(processor.vocabulary, 2, 5)
    prompt, negative = prompts(loaded, ["a dog barks", "a bell rings"])
    ids = torch.tensor([prompt])
    guide = UnbatchedClassifierFreeGuidanceLogitsProcessor(3.0, model, torch.tensor([negative]), use_cache=False)
    processors = LogitsProcessorList([guide, GrammarLogitsProcessor(grammar, processor.tokenizer, ids.shape[1])])
    config = GenerationConfig(
        do_sample=False, max_new_tokens=50, eos_token_id=grammar.vocabulary.stop_id, pad_token_id=0
    )
    plain = model.generate(ids, generation_config=config, logits_processor=processors)[0, ids.shape[1] :].tolist()
    decoder = GrammarDecoder(model, processor.tokenizer, grammar, guidance_scale=3.0)
    guided = decoder.turns([prompt], 50, negative_prompts=[negative])[0].ids
    assert guided == plain
    assert guided != GrammarDecoder(model, processor.tokenizer, grammar).turns([prompt], 50)[0].ids
    with pytest.raises(ValueError, match="go together"):
        decoder.turns([prompt], 5)


@same_fixture
@given(st.sampled_from([1, 3]), st.integers(1, 3), st.integers(0, 2), st.lists(st.integers(0, 5), max_size=14))
def test_state_read_off_the_ids_is_the_state_kept(
    make_vocabulary: Any, K: int, least: int, more: int, choices: list[int]
) -> None:
    voc = make_vocabulary(K, 4)
    grammar = AudioGrammar(voc, least, least + more, text=True, max_spans=2)
    allowed = grammar.table(torch.arange(voc.rows) < voc.start_id)
    prompt = [1, voc.start_id, voc.first_id, voc.end_id, 2]
    kept = TurnState.of(grammar, torch.tensor([prompt]), len(prompt))
    ids = list(prompt)
    for choice in choices:
        options = (
            allowed[kept.phases()[0]].nonzero()[:, 0].flip(0)
        )  # high ids first: start, end and codes are tried most
        token = int(options[choice % len(options)])
        kept.advance(torch.tensor([token]))
        ids.append(token)
        read = TurnState.of(grammar, torch.tensor([ids]), len(prompt))
        assert (read.tokens.item(), read.spans.item()) == (kept.tokens.item(), kept.spans.item())


def test_an_open_span_in_the_prompt_goes_on(loaded: LoadedCheckpoint) -> None:
    model, processor = loaded
    voc = processor.vocabulary
    grammar = AudioGrammar(voc, 3, 3)
    frames = voc.codes_to_ids(torch.zeros(voc.num_codebooks, 2, dtype=torch.long).numpy()).tolist()
    prompt = [*prompts(loaded, ["go on"])[0], voc.start_id, *frames]
    (turn,) = GrammarDecoder(model, processor.tokenizer, grammar).turns([prompt], 60)
    assert turn.stopped and turn.ids[-2:] == [voc.end_id, voc.stop_id]
    assert voc.ids_to_codes(turn.ids[:-2]).shape == (voc.num_codebooks, 3)


def test_sampling_follows_the_distribution() -> None:
    scores = torch.tensor([2.0, 1.0, -torch.inf, 0.0, 1.0])
    drawn = Sampler(Sampling(), range(4000))(scores.expand(4000, -1))
    share = torch.bincount(drawn, minlength=5) / 4000
    error = 4 * math.sqrt(0.25 / 4000)
    assert (share - scores.softmax(-1)).abs().max() < error and share[2] == 0
    top = Sampler(Sampling(top_k=1), range(50))(scores.expand(50, -1))
    assert (top == 0).all()
    near = Sampler(Sampling(top_p=0.5), range(50))(scores.expand(50, -1))
    assert (near == 0).all()


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="top_p in"):
        Sampling(top_p=0)


def test_grammars_that_mean_nothing(loaded: LoadedCheckpoint) -> None:
    model, processor = loaded
    for wrong in ({"min_frames": 0}, {"min_frames": 5, "max_frames": 4}, {"max_spans": 0}):
        with pytest.raises(ValueError, match=r"asked for|needs an audio span"):
            AudioGrammar(processor.vocabulary, **wrong)
    decoder = GrammarDecoder(model, processor.tokenizer, AudioGrammar(processor.vocabulary))
    with pytest.raises(ValueError, match="at least one token"):
        decoder.turns([[]], 5)
    assert bool(text_ids(processor.tokenizer, processor.vocabulary)[processor.vocabulary.stop_id])


def test_any_temperature_is_a_distribution() -> None:
    scores = torch.tensor([20.0, 21.0, -torch.inf, 3.0]).expand(50, -1)
    assert (Sampler(Sampling(temperature=1e-5), range(50))(scores) == 1).all()
    assert torch.equal(*(Sampler(Sampling(temperature=t), range(50))(scores) for t in (2, 2.0)))
    for wrong in (math.inf, math.nan, 1e-40):  # 21 / 1e-40 is beyond float32
        with pytest.raises(ValueError, match="temperature"):
            Sampling(temperature=wrong)


def test_devices_without_float64_draw_elsewhere() -> None:
    assert _with_float64(torch.device("mps")) == torch.device("cpu")
    assert _with_float64(torch.device("cuda", 1)) == torch.device("cuda", 1)


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs an Apple GPU")
def test_an_apple_gpu_draws_as_the_cpu_does() -> None:
    scores = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    drawn = Sampler(Sampling(), range(20))(scores.to("mps"))
    assert drawn.device.type == "mps" and torch.equal(drawn.cpu(), Sampler(Sampling(), range(20))(scores))


@pytest.mark.parametrize("sampling", [GREEDY, HOT])
def test_weights_that_are_no_numbers_are_told(loaded: LoadedCheckpoint, sampling: Sampling) -> None:
    model, processor = loaded
    with torch.no_grad():
        model.get_decoder().norm.weight.fill_(float("nan"))
    decoder = GrammarDecoder(model, processor.tokenizer, AudioGrammar(processor.vocabulary, 1, 2), sampling)
    with pytest.raises(NoNumberError, match="weights broken"):
        decoder.turns(prompts(loaded, TEXTS), 8)
