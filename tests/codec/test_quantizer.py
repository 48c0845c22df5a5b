from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from codec import EntangleCodecConfig
from codec.codebook import codebook_use, count_hits, restart_dead_codes
from codec.quantizer import CosineQuantizer


@pytest.fixture
def quantizer(make_config: Callable[..., EntangleCodecConfig]) -> CosineQuantizer:
    torch.manual_seed(0)
    quantizer = CosineQuantizer(make_config())
    torch.nn.init.normal_(quantizer.codebook)
    return quantizer.eval()


def test_each_row_is_its_own_code(quantizer: CosineQuantizer) -> None:
    rows = quantizer.unit_codebook()
    assert quantizer.search(rows[None]).tolist() == [list(range(64))]
    torch.testing.assert_close(quantizer.lookup(torch.arange(64)), rows)


def test_search_equals_nearest_euclidean_row(quantizer: CosineQuantizer) -> None:
    latents = F.normalize(torch.randn(2, 5_000, 8), dim=-1)  # more than one search block
    distances = torch.cdist(latents, quantizer.unit_codebook()[None])
    assert torch.equal(quantizer.search(latents), distances.argmin(-1))


@pytest.mark.parametrize("code", [-1, 64])
def test_a_code_outside_the_codebook_is_an_error(quantizer: CosineQuantizer, code: int) -> None:
    with pytest.raises(ValueError, match=r"\[0, 64\)"):
        quantizer.lookup(torch.tensor([0, code]))


def test_losses_reach_what_they_must(quantizer: CosineQuantizer) -> None:
    hidden = torch.randn(2, 10, 32, requires_grad=True)
    out = quantizer(hidden)
    # eq. 11 written out
    rows, latents = quantizer.unit_codebook()[out.codes], out.latents
    torch.testing.assert_close(out.loss, 1.25 * (rows - latents).square().sum(-1).mean())
    out.loss.backward()
    assert quantizer.codebook.grad is not None
    assert hidden.grad is not None
    used = quantizer.codebook.grad.abs().sum(-1) > 0
    assert used.nonzero()[:, 0].tolist() == sorted(set(out.codes.flatten().tolist()))


def test_straight_through_gives_the_latents_the_gradient_of_the_vectors(quantizer: CosineQuantizer) -> None:
    hidden, weight = torch.randn(1, 10, 32), torch.randn(8)
    gradients = []
    for straight_through in (True, False):
        leaf = hidden.clone().requires_grad_()
        out = quantizer(leaf)
        ((out.vectors if straight_through else quantizer.latents(leaf)) @ weight).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_padding_counts_nowhere(quantizer: CosineQuantizer) -> None:
    hidden = torch.randn(2, 10, 32)
    mask = (torch.arange(10) < torch.tensor([[10], [4]])).long()
    poisoned = torch.where(mask[..., None].bool(), hidden, torch.tensor(1e4))
    clean, dirty = quantizer(hidden, mask), quantizer(poisoned, mask)
    torch.testing.assert_close(clean.loss, dirty.loss)
    hits = torch.zeros(64)
    count_hits(hits, dirty.codes, mask, decay=0.0)
    torch.testing.assert_close(hits, torch.bincount(clean.codes[mask.bool()], minlength=64) * 64 / 14)


def test_standardising_ends_with_training(make_config: Callable[..., EntangleCodecConfig]) -> None:
    quantizer = CosineQuantizer(make_config())
    hidden = torch.randn(4, 50, 32)
    for _ in range(50):
        quantizer.latents(hidden)
    quantizer.eval()
    # alone, a clip gets the latents it gets in the batch: eq. 6 is a function of the clip
    torch.testing.assert_close(quantizer.latents(hidden)[:1], quantizer.latents(hidden[:1]))


def test_dead_codes_move_onto_latents_and_forget_their_moments() -> None:
    torch.manual_seed(0)
    codebook = torch.nn.Parameter(F.normalize(torch.randn(64, 8), dim=-1))
    optimizer = torch.optim.AdamW([codebook], lr=0.1)
    codebook.sum().backward()
    optimizer.step()
    hits = torch.zeros(64)
    hits[:4] = 16.0  # the mean is 1: the other sixty are dead
    latents = F.normalize(torch.randn(500, 8), dim=-1)
    alive = codebook[:4].clone()
    assert restart_dead_codes(codebook, hits, latents, optimizer) == 60
    assert torch.equal(codebook[:4], alive)
    assert (torch.cdist(codebook[4:].detach(), latents).amin(1) < 1e-2).all()  # cdist's own rounding
    assert optimizer.state[codebook]["exp_avg"][4:].abs().sum() == 0
    assert codebook.grad is not None
    assert codebook.grad[4:].abs().sum() == 0
    assert restart_dead_codes(codebook, hits, latents, optimizer) == 0  # they count as used until shown otherwise


def test_codebook_use() -> None:
    even = codebook_use(torch.arange(32).repeat(10), 64)
    assert (even.used, even.n) == (0.5, 320)
    assert even.perplexity == pytest.approx(32)
    assert codebook_use(torch.zeros(10, dtype=torch.long), 64).perplexity == pytest.approx(1)
