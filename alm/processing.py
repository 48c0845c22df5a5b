"""Conversations with audio ⇄ token ids, and ids ⇄ waveforms: the processor kept with every checkpoint.

Text is tokenised, audio is spliced in as ids (never through text), and what users write can never become a control or audio token.
"""

import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from alm.audio_items import read_item
from alm.contract import require_no_faults, template_faults
from alm.data.example import Content, DataError, Message
from alm.encoding import IGNORED, TextEncoder, TrainingIds, encode_pieces, with_labels
from alm.prompts import AUDIO_SPAN, Piece, render
from alm.vocabulary import AudioVocabulary, ContractError
from codec.base import Codec, Codes, Waveform
from codec.zoo import load_codec

CODEC_FOLDER = "codec"


class LengthError(ValueError):
    """Audio or a conversation longer than the model takes. Nothing is ever cut to fit."""


class AudioLanguageProcessor(ProcessorMixin):
    """Tokenizer, codec and vocabulary contract behind one interface in Transformers' manner.

    `audio_vocabulary` is the contract (or its `to_dict`); `max_length` the longest sequence in tokens (None: no limit);
    `codec_reference` the folder or Hub id the codec is loaded from when first needed. Audio items of messages are
    `{"type": "audio", ...}` with `path`, `bytes`, `codes` `(K, T)`, `audio` `(S,)` and `sampling_rate`, or `audio` as a column of
    `datasets` gives it.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        audio_vocabulary: AudioVocabulary | dict[str, Any],
        max_length: int | None = None,
        codec_reference: str | None = None,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template)
        given = audio_vocabulary
        self.vocabulary = given if isinstance(given, AudioVocabulary) else AudioVocabulary.from_dict(given)
        self.audio_vocabulary = self.vocabulary.to_dict()  # what `to_dict` writes to processor_config.json
        self.max_length, self.codec_reference = max_length, codec_reference
        self.codec_device = "cpu"
        self._codec: Codec | None = None
        self.text_encoder = TextEncoder(tokenizer)
        require_no_faults(template_faults(self.chat_template, self.vocabulary), "the processor")

    # ---- codec -----------------------------------------------------------------------------------------------------

    @property
    def codec(self) -> Codec | None:
        """The codec, loaded on first use from `codec_reference` and held to the contract; None where none is known."""
        if self._codec is None and self.codec_reference is not None:
            self.codec = load_codec(self.codec_reference, self.codec_device)
        return self._codec

    @codec.setter
    def codec(self, codec: Codec | None) -> None:
        if codec is not None:
            self.vocabulary.require_codec(
                codec.fingerprint, f"the codec {self.codec_reference or type(codec).__name__}"
            )
        self._codec = codec

    def require_codec(self) -> Codec:
        """The codec; raises `ContractError` where none is known."""
        if self.codec is None:
            raise ContractError(
                "this checkpoint names no codec; give one to load_checkpoint(path, codec=...) or set processor.codec"
            )
        return self.codec

    def encode_audio(self, audio: Sequence[str | Path | Waveform | Content]) -> list[Codes]:
        """Codes `(K, T_i)` of files, waveforms `(S_i,)` at the codec's sampling rate, or audio items of messages; one batch.

        Raises `AudioError` on a file that cannot be read, `LengthError` on one longer than the model takes.
        """
        codec = self.require_codec()
        rate = codec.sampling_rate
        items = [{"audio": x, "sampling_rate": rate} if isinstance(x, np.ndarray) else x for x in audio]
        return codec.encode([read_item(item, rate, self._check_seconds) for item in items])

    def decode_audio(self, ids: Sequence[int]) -> Waveform:
        """Waveform `(S,)` of audio ids, with or without the start and end token around them.

        Raises `ValueError` where there is none, a frame is incomplete, or an id is not an audio token of its codebook.
        """
        flat = [int(i) for i in ids]
        flat = flat[1:] if flat[:1] == [self.vocabulary.start_id] else flat
        flat = flat[:-1] if flat[-1:] == [self.vocabulary.end_id] else flat
        if not flat:
            raise ValueError("no audio tokens to decode: the span is empty")
        return self.require_codec().decode([self.vocabulary.ids_to_codes(flat)])[0]

    # ---- conversations ---------------------------------------------------------------------------------------------

    def encode_messages(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> list[int]:
        """Ids of a conversation; with `add_generation_prompt` it ends where the assistant is to speak.

        Raises `DataError` on a malformed conversation, `LengthError` on one longer than `max_length`.
        """
        return self.encode_conversations([messages], add_generation_prompt)[0]

    def encode_conversations(
        self, conversations: Sequence[Sequence[Message]], add_generation_prompt: bool = False
    ) -> list[list[int]]:
        """`encode_messages` of several: the audio of all is encoded in one batch."""
        return [ids.input_ids for ids in self._encode(conversations, add_generation_prompt)]

    def training_ids(self, messages: Sequence[Message]) -> TrainingIds:
        """Ids and labels: what the assistant says is labelled, with its `<|im_end|>` and its audio's start and end tokens.

        The ids before an answer equal `encode_messages` of the messages before it with `add_generation_prompt=True`.
        Raises as `encode_messages`, and `DataError` where the assistant says nothing.
        """
        result = self._encode([messages], False)[0]
        if all(label == IGNORED for label in result.labels):
            raise DataError("a conversation for training needs a message of the assistant, got none")
        return result

    def _encode(self, conversations: Sequence[Sequence[Message]], add_generation_prompt: bool) -> list[TrainingIds]:
        rendered = [list(render(messages, add_generation_prompt)) for messages in conversations]
        items = [[piece.value for piece in pieces if isinstance(piece.value, dict)] for pieces in rendered]
        codes = self._codes([item for some in items for item in some])
        flat = (self.vocabulary.codes_to_ids(one).tolist() for one in codes)
        spans = [list(islice(flat, len(some))) for some in items]
        results = [
            with_labels(encode_pieces(pieces, some, self.text_encoder, self.vocabulary))
            for pieces, some in zip(rendered, spans, strict=True)
        ]
        for result in results:
            if self.max_length is not None and len(result.input_ids) > self.max_length:
                raise LengthError(
                    f"a conversation of {len(result.input_ids)} tokens, but at most {self.max_length} are accepted; "
                    "shorten its audio or text"
                )
        return results

    def _codes(self, items: Sequence[Content]) -> list[Codes]:
        """Codes of audio items in order, those without codes encoded in one batch."""
        given = [None if item.get("codes") is None else np.asarray(item["codes"], dtype=np.int64) for item in items]
        waiting = [item for item, codes in zip(items, given, strict=True) if codes is None]
        encoded = iter(self.encode_audio(waiting) if waiting else [])
        return [next(encoded) if codes is None else codes for codes in given]

    def _check_seconds(self, seconds: float, name: str) -> None:
        tokens = seconds * self.vocabulary.frame_rate * self.vocabulary.num_codebooks
        if self.max_length is not None and tokens > self.max_length:
            raise LengthError(
                f"{name}: {seconds:.1f} s of audio are {tokens:.0f} tokens, but the model takes {self.max_length}; split the audio"
            )

    # ---- Transformers' manner --------------------------------------------------------------------------------------

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        tokenize: bool = False,
        add_generation_prompt: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `ProcessorMixin.apply_chat_template`: a text, or ids with the audio in place, of one conversation or several.

        Args:
            return_tensors: with `tokenize`, `"pt"` or `"np"` pads several conversations on the left.
        """
        if kwargs:
            raise TypeError(f"apply_chat_template takes no {', '.join(kwargs)} here: there is one template for all")
        batched = bool(conversation) and not isinstance(conversation[0], dict)
        conversations: Any = conversation if batched else [conversation]
        if not tokenize:
            texts = ["".join(_as_text(piece) for piece in render(c, add_generation_prompt)) for c in conversations]
            return texts if batched else texts[0]
        rows = self.encode_conversations(conversations, add_generation_prompt)
        features = self._features(rows if batched or return_tensors else rows[0], return_tensors)
        return features if return_dict else features["input_ids"]

    def __call__(
        self,
        text: str | list[str] | None = None,
        audio: Sequence[str | Path | Waveform | Content] | None = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Ids of rendered prompts, each `<|audio_pad|>` in them replaced by the ids of the next audio.

        `text` is trusted (control tokens in it count): it comes from `apply_chat_template`. `audio` holds files, waveforms `(S,)`
        at `sampling_rate`, or values of a `datasets` column, in the order of the placeholders over all texts.
        Raises `DataError` where their numbers differ.
        """
        if kwargs or text is None:
            raise TypeError(f"text is needed, and audio, sampling_rate, return_tensors accepted; got {sorted(kwargs)}")
        texts = [text] if isinstance(text, str) else text
        items: list[Content] = [
            {"audio": x, "sampling_rate": sampling_rate} if isinstance(x, np.ndarray) else _as_item(x)
            for x in audio or []
        ]
        rows = [self.text_encoder.encode([(t, True)]) for t in texts]
        wanted = sum(row.count(self.vocabulary.placeholder_id) for row in rows)
        if wanted != len(items):
            raise DataError(f"{wanted} audio placeholders in the text, but {len(items)} pieces of audio given")
        spans = iter(self._codes(items))
        spliced = [list(self._splice(row, spans)) for row in rows]
        return self._features(spliced[0] if isinstance(text, str) and not return_tensors else spliced, return_tensors)

    def _splice(self, row: list[int], spans: Iterator[Codes]) -> Iterator[int]:
        for token in row:
            if token == self.vocabulary.placeholder_id:
                yield from self.vocabulary.codes_to_ids(next(spans)).tolist()
            else:
                yield token

    def _features(self, input_ids: list[Any], return_tensors: str | None) -> BatchFeature:
        if return_tensors is None:
            nested = bool(input_ids) and isinstance(input_ids[0], list)
            mask = [[1] * len(row) for row in input_ids] if nested else [1] * len(input_ids)
            return BatchFeature({"input_ids": input_ids, "attention_mask": mask})
        padded = self.tokenizer.pad({"input_ids": input_ids}, padding_side="left", return_tensors=return_tensors)
        return BatchFeature(dict(padded))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "AudioLanguageProcessor":
        """Load from a checkpoint's folder or Hub id; the codec inside it is loaded when first needed."""
        processor: AudioLanguageProcessor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if processor.codec_reference == CODEC_FOLDER:
            processor.codec_reference = str(_codec_folder(pretrained_model_name_or_path, kwargs.get("revision")))
        return processor

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Write tokenizer, template, contract, and the codec as `codec/` (as its Hub id where it has no `save_pretrained`)."""
        source = self.codec_reference
        target = Path(save_directory) / CODEC_FOLDER
        if (save_codec := getattr(self._codec, "save_pretrained", None)) is not None:
            save_codec(target)
            self.codec_reference = CODEC_FOLDER
        elif source is not None and Path(source).is_dir():
            if target.resolve() != Path(source).resolve():
                shutil.copytree(source, target, dirs_exist_ok=True)
            self.codec_reference = CODEC_FOLDER
        try:
            return super().save_pretrained(str(save_directory), push_to_hub=push_to_hub, **kwargs)
        finally:
            self.codec_reference = source

    def to_dict(self) -> dict[str, Any]:
        """What `processor_config.json` holds."""
        return {
            "processor_class": type(self).__name__,
            "audio_vocabulary": self.audio_vocabulary,
            "max_length": self.max_length,
            "codec_reference": self.codec_reference,
        }


def _as_text(piece: Piece) -> str:
    return piece.value if isinstance(piece.value, str) else AUDIO_SPAN


def _as_item(audio: str | Path | Content) -> Content:
    return audio if isinstance(audio, dict) else {"path": audio}


def _codec_folder(path: str | Path, revision: str | None) -> Path:
    if Path(path).is_dir():
        return Path(path) / CODEC_FOLDER
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(path), revision=revision, allow_patterns=[f"{CODEC_FOLDER}/*"])) / CODEC_FOLDER
