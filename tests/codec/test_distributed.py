"""Two gloo processes do what one does with both their batches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from codec.text import contrastive_loss

PROGRAM = """
import sys, torch, torch.distributed as dist
from codec.codebook import count_hits, restart_dead_codes
from codec.text import contrastive_loss
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
assert world == 2
audio, text = (torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0)))
mine = [x[rank * 4 : rank * 4 + 4].clone().requires_grad_() for x in (audio, text)]
loss = contrastive_loss(*mine, torch.tensor(2.0))
loss.backward()
# data parallelism averages the gradients of parameters; of inputs, each rank holds the sum over ranks of its own rows'
grads = [x.grad / world for x in mine]
torch.manual_seed(rank)
codebook = torch.nn.Parameter(torch.nn.functional.normalize(torch.randn(64, 8), dim=-1))
dist.broadcast(codebook.data, 0)
hits = torch.zeros(64)
count_hits(hits, torch.full((1, 10 + rank), rank), None, decay=0.0)
moved = restart_dead_codes(codebook, hits, torch.nn.functional.normalize(torch.randn(20 - 3 * rank, 8), dim=-1))
torch.save({"loss": loss.detach(), "grads": grads, "codebook": codebook.detach(), "hits": hits, "moved": moved}, f"{sys.argv[1]}/{rank}.pt")
dist.destroy_process_group()  # else a process that ends while the other's threads still talk to it may abort
"""


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*command, str(tmp_path / "program.py"), str(tmp_path)], check=True, env=os.environ, timeout=300)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    audio, text = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    audio.requires_grad_()
    text.requires_grad_()
    loss = contrastive_loss(audio, text, torch.tensor(2.0))
    loss.backward()
    for i, whole in enumerate((audio, text)):
        torch.testing.assert_close(torch.cat([rank["grads"][i] for rank in ranks]), whole.grad)
    for rank in ranks:
        torch.testing.assert_close(rank["loss"], loss.detach())
        assert rank["moved"] == 20  # as many as rank 0 has latents
        assert torch.equal(rank["codebook"], ranks[0]["codebook"])
        assert torch.equal(rank["hits"], ranks[0]["hits"])
    # both ranks' frames, as multiples of the mean rate
    torch.testing.assert_close(ranks[0]["hits"][:2], torch.tensor([10.0, 11.0]) * 64 / 21)
