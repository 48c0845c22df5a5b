"""What may come next: codes of the right codebook inside an audio span, an end in time, only text outside.

A span is `<|audio_start|>`, whole frames of `K` codes, codebook 0 first, and `<|audio_end|>`. The end may come after `min_frames` frames
and must after `max_frames`, so that whatever a model's weights are, what it generates decodes and ends.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from alm.vocabulary import AudioVocabulary


@dataclass(frozen=True)
class AudioGrammar:
    """The language of one assistant turn: `text`, and at most `max_spans` audio spans.

    Without text, the turn is exactly `max_spans` spans and its stop token; with text, it stops wherever the model likes, outside spans.
    """

    vocabulary: AudioVocabulary
    min_frames: int = 1
    max_frames: int = 1500
    text: bool = False
    max_spans: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(
                f"spans of {self.min_frames} to {self.max_frames} frames asked for; at least one frame, and the most not under the least"
            )
        if self.max_spans < (0 if self.text else 1):
            raise ValueError(f"max_spans is {self.max_spans}: a turn without text needs an audio span")

    @property
    def max_span_ids(self) -> int:
        """Ids of the longest span, its start and end included."""
        return self.max_frames * self.vocabulary.num_codebooks + 2

    # A phase is what may come next, as a number: 0 … K − 1 a code of that codebook; then CODE_OR_END, END, OUTSIDE (a span may begin),
    # CLOSED (no span may begin any more).

    @property
    def phases(self) -> int:
        """Number of phases, `K + 4`."""
        return self.vocabulary.num_codebooks + 4

    def phase(self, tokens: Tensor, spans: Tensor) -> Tensor:
        """Phases `(B,)` of turns with `spans` finished spans and `tokens` ids in the open one (−1: none is open)."""
        K = self.vocabulary.num_codebooks
        frames, book = tokens // K, tokens % K
        inside = torch.where((book == 0) & (frames >= self.min_frames), K, book)
        inside = torch.where((book == 0) & (frames >= self.max_frames), K + 1, inside)
        outside = torch.where(spans < self.max_spans, K + 2, K + 3)
        return torch.where(tokens >= 0, inside, outside)

    def table(self, text_ids: Tensor) -> Tensor:
        """Allowed ids of each phase `(K + 4, V)`, bool; `text_ids` `(V,)` are those of text, the stop id among them."""
        voc, K = self.vocabulary, self.vocabulary.num_codebooks
        allowed = torch.zeros(self.phases, voc.rows, dtype=torch.bool, device=text_ids.device)
        for book in range(K):
            first = voc.first_id + book * voc.codebook_size
            allowed[book, first : first + voc.codebook_size] = True
        allowed[K] = allowed[0]
        allowed[K : K + 2, voc.end_id] = True
        if self.text:
            allowed[K + 2 :] = text_ids
        else:
            allowed[K + 3, voc.stop_id] = True
        allowed[K + 2, voc.start_id] = True
        return allowed


class TurnState:
    """How far `B` assistant turns have come. `tokens` `(B,)`: ids in the open span, −1 outside; `spans` `(B,)`: finished spans."""

    def __init__(self, grammar: AudioGrammar, tokens: Tensor, spans: Tensor) -> None:
        self.grammar, self.tokens, self.spans = grammar, tokens, spans

    @classmethod
    def of(cls, grammar: AudioGrammar, ids: Tensor, prompt_length: int) -> "TurnState":
        """State after `ids` `(B, L)`, of which the first `prompt_length` are the prompt.

        A prompt may end inside a span, after whole frames: the turn goes on with it, and its length counts from there.
        """
        voc = grammar.vocabulary
        places = torch.arange(ids.shape[1], device=ids.device)

        def last(token: int) -> Tensor:
            return torch.where(ids == token, places, -1).amax(1)

        begin = last(voc.start_id)
        tokens = ids.shape[1] - torch.clamp(begin + 1, min=prompt_length)
        open_span = begin > last(voc.end_id)
        spans = (ids[:, prompt_length:] == voc.end_id).sum(1)
        return cls(grammar, torch.where(open_span, tokens, -1), spans)

    def phases(self) -> Tensor:
        """What may come next `(B,)`, as numbers of `AudioGrammar.phase`."""
        return self.grammar.phase(self.tokens, self.spans)

    def forced_end(self) -> Tensor:
        """Rows `(B,)` whose span must end now because it is as long as it may be."""
        return self.phases() == self.grammar.vocabulary.num_codebooks + 1

    def advance(self, ids: Tensor) -> None:
        """Take the next id of each turn `(B,)`."""
        voc = self.grammar.vocabulary
        closing = ids == voc.end_id
        self.spans = self.spans + closing
        self.tokens = torch.where(self.tokens >= 0, self.tokens + 1, self.tokens)
        self.tokens = torch.where(ids == voc.start_id, 0, torch.where(closing, -1, self.tokens))


def text_ids(tokenizer: PreTrainedTokenizerBase, vocabulary: AudioVocabulary) -> Tensor:
    """Which ids are text `(V,)`, bool: neither audio, nor the tokens around it, nor rows of the vocabulary without a token."""
    allowed = torch.zeros(vocabulary.rows, dtype=torch.bool)
    allowed[sorted(tokenizer.get_vocab().values())] = True
    allowed[[vocabulary.start_id, vocabulary.end_id, vocabulary.placeholder_id]] = False
    allowed[vocabulary.first_id : vocabulary.end] = False
    return allowed


class GrammarLogitsProcessor(LogitsProcessor):
    """The grammar for Transformers' own `generate`: forbids, at each step, all that may not come next.

    State is read off the ids, so that any decoding of `generate` (beams, samples, assisted) may use it; `prompt_length` is
    `input_ids.shape[1]`. A mask over the vocabulary rather than `suppress_tokens`, which compares every id with each of 16,384 others.
    """

    def __init__(self, grammar: AudioGrammar, tokenizer: PreTrainedTokenizerBase, prompt_length: int) -> None:
        self.grammar, self.prompt_length = grammar, prompt_length
        self.forbidden = ~grammar.table(text_ids(tokenizer, grammar.vocabulary))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `(B, V)` with the forbidden ids at minus infinity."""
        self.forbidden = self.forbidden.to(scores.device)
        phases = TurnState.of(self.grammar, input_ids, self.prompt_length).phases()
        return scores.masked_fill(self.forbidden[phases], -torch.inf)
