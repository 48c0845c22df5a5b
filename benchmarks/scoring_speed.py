"""Log-likelihood of multiple choices: the prompt computed once and shared, against one full forward pass per choice.

    python benchmarks/scoring_speed.py [--repeats 5]

Prints CPU seconds of both on the same random model and the ratio (above 1: ours is quicker) with its spread; target 3 (a 10-s clip
with a short question and four choices of six tokens).
"""

import statistics
import time
from dataclasses import dataclass, field

from alm.arguments import parse_arguments, run_main


@dataclass
class BenchmarkArguments:
    repeats: int = field(default=5, metadata={"help": "paired repetitions"})
    prompt_tokens: int = field(default=540, metadata={"help": "tokens of audio and question"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(BenchmarkArguments, argv, description=__doc__)
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from alm.scoring.loglikelihood import score_choices

    torch.manual_seed(0)
    shape = {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
    }
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=20_480, intermediate_size=768, **shape)).eval()
    prompt = torch.randint(20_000, (args.prompt_tokens,)).tolist()
    choices = torch.randint(20_000, (4, 6)).tolist()

    @torch.inference_mode()
    def one_pass_each() -> list[float]:
        sums = []
        for choice in choices:
            logits = model(torch.tensor([prompt + choice]), use_cache=False).logits[0, len(prompt) - 1 : -1].float()
            sums.append(float(logits.log_softmax(-1)[torch.arange(len(choice)), choice].sum()))
        return sums

    def shared() -> list[float]:
        return list(score_choices(model, prompt, choices).sums)

    difference = max(abs(a - b) for a, b in zip(one_pass_each(), shared(), strict=True))
    ratios, seconds = [], []
    for _ in range(args.repeats):
        spent = []
        for run in (one_pass_each, shared):
            start = time.process_time()
            run()
            spent.append(time.process_time() - start)
        ratios.append(spent[0] / spent[1])
        seconds.append(spent)
    naive, ours = (statistics.median(column) for column in zip(*seconds, strict=True))
    print(f"one pass per choice  {naive:.3f} CPU s\nshared prompt        {ours:.3f} CPU s")
    print(
        f"ratio                {statistics.median(ratios):.2f}  [{min(ratios):.2f}, {max(ratios):.2f}]  largest difference {difference:.1e}"
    )


if __name__ == "__main__":
    run_main(main)
