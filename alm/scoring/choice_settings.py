"""What a run over a benchmark of questions computes. Loads nothing heavy."""

from dataclasses import dataclass
from typing import Any

from alm.scoring.answers import Rule
from alm.scoring.multiple_choice import LIKELIHOODS
from alm.scoring.prompts import LETTER_PROMPT

NO_AUDIO, SHUFFLED_AUDIO = "no_audio", "shuffled_audio"
CONTROLS = (NO_AUDIO, SHUFFLED_AUDIO)


@dataclass(frozen=True)
class LoopSettings:
    """What a run computes. Everything but `batch_size` changes rows and belongs to the resume key.

    `prompt` is a name in `alm.scoring.prompts.PROMPTS`; `controls` are among `CONTROLS`; `cyclic` asks each question with every
    rotation of its choices.
    """

    prompt: str = "mmar-authors"
    generation: bool = True
    loglikelihood: bool = True
    letter: bool = True
    controls: tuple[str, ...] = CONTROLS
    cyclic: bool = False
    max_new_tokens: int = 128
    batch_size: int = 8

    def scores(self, rule: Rule) -> list[str]:
        """Names of the scores that come of it."""
        likelihoods = [*LIKELIHOODS] * self.loglikelihood + ["letter"] * self.letter
        return [*rule.generated] * self.generation + likelihoods

    def decoding(self) -> dict[str, Any]:
        """For manifest and resume key."""
        return {
            "generation": "greedy, cut to the bare answer" if self.generation else None,
            "max_new_tokens": self.max_new_tokens,
            "loglikelihood": "sum over the choice and its end of turn, also per token" if self.loglikelihood else None,
            "letter": f"next token, prompt {LETTER_PROMPT}" if self.letter else None,
            "controls": list(self.controls),
            "permutations": "cyclic" if self.cyclic else None,
        }

    def unavailable(self, rule: Rule) -> dict[str, str]:
        """Scores that were switched off, and how to have them."""
        off = [(name, "generation") for name in rule.generated if not self.generation]
        off += [(name, name) for name in ("loglikelihood", "letter") if not getattr(self, name)]
        return {name: f"switched off; run again without --no_{flag}" for name, flag in off}
