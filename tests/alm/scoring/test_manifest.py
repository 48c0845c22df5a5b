import subprocess
import sys

import pytest
import torch

from alm.scoring.manifest import code_version, environment, resume_key, weights_digest

PARTS = {"weights": "w", "vocabulary": "v", "data": "d", "prompt": "p", "decoding": {"max_new_tokens": 8}, "code": "c"}


def test_every_part_is_in_the_key() -> None:
    key = resume_key(**PARTS)
    assert key == resume_key(**dict(reversed(PARTS.items())))
    for name in PARTS:
        assert resume_key(**{**PARTS, name: "other"}) != key


def test_the_digest_sees_one_bit_and_the_type() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    before = weights_digest(model)
    assert before == weights_digest(model)
    other_type = weights_digest(torch.nn.Linear(3, 2).bfloat16())
    with torch.no_grad():
        model.weight.view(torch.int32)[0, 0] ^= 1
    assert len({before, weights_digest(model), other_type}) == 3


def test_environment() -> None:
    found = environment(["python", "x.py", "--name", "a b"])
    assert found["command"] == "python x.py --name 'a b'"
    assert found["versions"]["python"] and found["versions"]["torch"] == torch.__version__
    assert found["code"] == code_version() and len(found["code"]) == 16
    assert found["commit"] is None or len(found["commit"].removesuffix("+")) == 40


@pytest.mark.slow
def test_stored_answers_need_no_torch() -> None:
    code = (
        "import sys, alm.scoring.choice_run as r, alm.scoring.results, alm.data.mmar\n"
        "from alm.scoring.manifest import environment\nenvironment([])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
