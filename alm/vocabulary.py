"""The vocabulary contract: how audio codes become token ids, and the hash that keeps everyone to it.

A language model, its token store and its results are only worth something together with the codec and the id map they were
made with. The contract is stored in the language model's config, every token shard and every result, and compared at load,
resume, evaluation and serving.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

AUDIO_START, AUDIO_END, AUDIO_PLACEHOLDER = "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>"
SPECIAL_TOKENS = (AUDIO_START, AUDIO_END, AUDIO_PLACEHOLDER)


class ContractError(ValueError):
    """Two parts that must share one vocabulary contract do not."""


@dataclass(frozen=True)
class AudioVocabulary:
    """The map between codes `(K, T)` and token ids `(T × K,)`.

    Audio ids are one contiguous range `[first_id, first_id + num_codebooks × codebook_size)`; code `c` of codebook `k` is
    `first_id + k × codebook_size + c`. Several codebooks are flattened frame by frame: frame 0's K codes, frame 1's, ….
    """

    codec_fingerprint: str
    sampling_rate: int
    frame_rate: float
    num_codebooks: int
    codebook_size: int
    first_id: int
    start_id: int
    end_id: int
    placeholder_id: int
    stop_id: int
    """Ends a turn (`<|im_end|>`): the only id that generation stops at."""
    pad_id: int
    """Fills batches; never the stop id, or the loss would leave the stop token out and nothing would ever end."""
    rows: int
    """Rows of embedding and output head, `config.vocab_size`: ids from `end` on have no token."""
    tied: bool
    """Whether embedding and output head are one matrix, as in Qwen3 up to 4B."""
    tokenizer_hash: str
    """Over every token and its id, and the merges in order (`alm.contract.tokenizer_hash`)."""
    chat_template_hash: str

    @property
    def size(self) -> int:
        """Number of audio tokens, `K × codebook_size`."""
        return self.num_codebooks * self.codebook_size

    @property
    def end(self) -> int:
        """One past the last audio id: rows from here to `rows` are padding."""
        return self.first_id + self.size

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over every field."""
        return digest(asdict(self))

    def tokens(self) -> list[str]:
        """Token strings in id order, `<|audio_K_CODE|>`."""
        return audio_token_names(self.num_codebooks, self.codebook_size)

    def codes_to_ids(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Codes `(K, T)` to ids `(T × K,)`. Raises `ValueError` on a wrong `K` or a code out of range."""
        codes = np.asarray(codes, dtype=np.int64)
        if codes.ndim != 2 or codes.shape[0] != self.num_codebooks:
            raise ValueError(f"codes of shape ({self.num_codebooks}, T) expected, got {codes.shape}")
        if codes.size and (codes.min() < 0 or codes.max() >= self.codebook_size):
            raise ValueError(f"codes must be in [0, {self.codebook_size}), got {codes.min()}…{codes.max()}")
        offsets = self.first_id + self.codebook_size * np.arange(self.num_codebooks, dtype=np.int64)
        return (codes + offsets[:, None]).T.reshape(-1)

    def ids_to_codes(self, ids: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Ids `(T × K,)` to codes `(K, T)`. Raises `ValueError` on an incomplete frame or an id of another codebook."""
        flat = np.asarray(ids, dtype=np.int64).reshape(-1)
        if flat.size % self.num_codebooks:
            raise ValueError(f"{flat.size} audio ids are not a whole number of frames of {self.num_codebooks} codes")
        frames = flat.reshape(-1, self.num_codebooks).T
        codes = frames - self.first_id - self.codebook_size * np.arange(self.num_codebooks, dtype=np.int64)[:, None]
        if codes.size and (codes.min() < 0 or codes.max() >= self.codebook_size):
            bad = int(frames[(codes < 0) | (codes >= self.codebook_size)][0])
            raise ValueError(
                f"id {bad} is not an audio token of its codebook; audio ids are [{self.first_id}, "
                f"{self.first_id + self.size}), {self.num_codebooks} codebooks of {self.codebook_size} in turn"
            )
        return codes

    def to_dict(self) -> dict[str, Any]:
        """Fields and hash, as stored in `config.json` under `audio_vocabulary`."""
        return {**asdict(self), "hash": self.hash}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "AudioVocabulary":
        """Read back `to_dict`. Raises `ContractError` where the stored hash does not fit the fields."""
        given = {key: value for key, value in data.items() if key != "hash"}
        known = {field.name for field in fields(cls)}
        if given.keys() != known:
            wrong = ", ".join([f"lacks {key}" for key in sorted(known - given.keys())] + sorted(given.keys() - known))
            raise ContractError(
                f"a stored vocabulary contract that {wrong}: written by another version of the project, or edited. Grow the base "
                "model again with recipes/extend_vocabulary.py"
            )
        vocabulary = cls(**given)
        if "hash" in data and data["hash"] != vocabulary.hash:
            raise ContractError(
                f"stored vocabulary hash {data['hash']} but its fields give {vocabulary.hash}: edited by hand?"
            )
        return vocabulary

    def require_codec(self, fingerprint: str, who: str) -> None:
        """Raise `ContractError`, with both fingerprints, unless `fingerprint` is the codec this vocabulary was made for."""
        if fingerprint != self.codec_fingerprint:
            raise ContractError(
                f"{who} has codec fingerprint {fingerprint}, but the language model was grown for {self.codec_fingerprint}. Codes of one "
                "codec mean nothing to a model of another: load the codec saved with the checkpoint, or tokenise and train again."
            )


def audio_token_names(num_codebooks: int, codebook_size: int) -> list[str]:
    """Token strings in id order, `<|audio_K_CODE|>`."""
    return [f"<|audio_{k}_{c}|>" for k in range(num_codebooks) for c in range(codebook_size)]


def digest(data: Any) -> str:
    """16 hexadecimal digits of SHA-256 over canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:16]
