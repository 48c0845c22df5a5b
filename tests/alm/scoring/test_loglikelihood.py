import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import Qwen3Config, Qwen3ForCausalLM

from alm.scoring.loglikelihood import score_choices

VOCABULARY = 50
IDS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=7)


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, initializer_range=0.3,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


@torch.no_grad()
def naive(model: Qwen3ForCausalLM, prompt: list[int], choice: list[int]) -> float:
    """The oracle: one full forward of prompt and choice, no cache, no padding, no batch."""
    logits = model(input_ids=torch.tensor([prompt + choice]), use_cache=False).logits[0].float()
    probabilities = logits.log_softmax(-1)
    return sum(float(probabilities[len(prompt) + i - 1, token]) for i, token in enumerate(choice))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompt=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30),
    choices=st.lists(IDS, min_size=1, max_size=6),
)
def test_equals_one_full_forward_per_choice(
    model: Qwen3ForCausalLM, prompt: list[int], choices: list[list[int]]
) -> None:
    scores = score_choices(model, prompt, choices)
    assert scores.sums == pytest.approx([naive(model, prompt, choice) for choice in choices], abs=1e-4)
    assert scores.tokens == tuple(len(choice) for choice in choices)
    assert scores.means == pytest.approx([s / len(c) for s, c in zip(scores.sums, choices, strict=True)])


def test_each_choice_scores_the_same_alone_and_among_others(model: Qwen3ForCausalLM) -> None:
    prompt, choices = list(range(20)), [[1, 2, 3, 4, 5, 6], [7], [8, 9], [1, 2]]
    together = score_choices(model, prompt, choices).sums
    alone = [score_choices(model, prompt, [choice]).sums[0] for choice in choices]
    backwards = score_choices(model, prompt, choices[::-1]).sums[::-1]
    assert together == pytest.approx(alone, abs=1e-5)
    assert together == pytest.approx(backwards, abs=1e-5)


def test_probabilities_of_all_one_token_choices_sum_to_one(model: Qwen3ForCausalLM) -> None:
    sums = torch.tensor(score_choices(model, [3, 1, 4], [[token] for token in range(VOCABULARY)]).sums)
    assert float(sums.exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_the_prompt_runs_once_and_its_logits_are_made_for_one_position(model: Qwen3ForCausalLM) -> None:
    seen: list[tuple[int, ...]] = []
    hook = model.lm_head.register_forward_hook(lambda _, inputs, output: seen.append(tuple(output.shape)))
    try:
        score_choices(model, list(range(40)), [[1, 2, 3], [4, 5], [6, 7, 8, 9]])
    finally:
        hook.remove()
    assert seen == [(1, 1, VOCABULARY), (3, 3, VOCABULARY)]


@pytest.mark.parametrize(("prompt", "choices"), [([], [[1]]), ([1], []), ([1], [[1], []])])
def test_empty_input_is_refused(model: Qwen3ForCausalLM, prompt: list[int], choices: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="non-empty prompt"):
        score_choices(model, prompt, choices)
