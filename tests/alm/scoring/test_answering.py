from functools import partial

import torch

from alm.checkpoint import LoadedCheckpoint
from alm.scoring.answering import greedy_texts

LENGTHS = [3, 40, 11, 1, 25]


def prompts(tiny: LoadedCheckpoint) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    rows = tiny.model.config.vocab_size
    return [torch.randint(0, rows, (length,), generator=generator).tolist() for length in LENGTHS]


@torch.no_grad()
def by_hand(tiny: LoadedCheckpoint, prompt: list[int], limit: int) -> tuple[list[int], bool]:
    """The oracle: full forwards without cache or padding, the best text token each time."""
    vocabulary, end = tiny.processor.vocabulary, tiny.processor.tokenizer.eos_token_id
    text = [i for i in tiny.processor.tokenizer.get_vocab().values() if i < vocabulary.start_id]
    ids: list[int] = []
    while len(ids) < limit:
        logits = tiny.model(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0, -1]
        ids.append(max(text, key=lambda i: float(logits[i])))
        if ids[-1] == end:
            return ids[:-1], True
    return ids, False


def test_batched_answers_equal_single_ones_and_the_oracle(tiny: LoadedCheckpoint) -> None:
    model, processor = tiny
    # the end of turn made likely, so that some answers end and others reach the limit
    with torch.no_grad():
        model.get_input_embeddings().weight[processor.tokenizer.eos_token_id] *= 2.0
    answer = partial(greedy_texts, model, processor)
    given = prompts(tiny)
    together = answer(given, 12)
    assert together == [answer([prompt], 12)[0] for prompt in given]
    expected = [by_hand(tiny, prompt, 12) for prompt in given]
    assert [text for text, _ in together] == [
        processor.tokenizer.decode(ids, skip_special_tokens=True) for ids, _ in expected
    ]
    assert [stopped for _, stopped in together] == [stopped for _, stopped in expected]
    assert len({stopped for _, stopped in together}) == 2


def test_only_text_is_generated(tiny: LoadedCheckpoint) -> None:
    model, processor = tiny
    answer = partial(greedy_texts, model, processor)
    for text, _ in answer(prompts(tiny), 8):
        assert "<|audio" not in text


def test_sampling_and_penalties_of_the_checkpoint_are_overridden(tiny: LoadedCheckpoint) -> None:
    model, processor = tiny
    plain = greedy_texts(model, processor, prompts(tiny), 10)
    settings = {
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 2,
    }
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    assert greedy_texts(model, processor, prompts(tiny), 10) == plain
