"""A model on this machine: any audio-language model of Transformers, through its own class, processor and chat template."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor, GenerationConfig

from alm.chat.backend import BackendError, ClipError, Conversation, Reply, Turn
from alm.scoring.manifest import weights_digest

THINKERS = {
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
}
"""Model types whose text comes from a part of the checkpoint; the part that speaks is not loaded."""


class LocalModel:
    """`Backend` over `generate`, greedy, one clip at a time (`ask`) or a batch (`inputs`, `replies`).

    `name` is a folder or a Hub id, `revision` its branch, tag or commit; `device` `auto` spreads the layers over all devices;
    `dtype` is a torch dtype's name or `auto`. No code of the checkpoint is run, and its settings of sampling and penalties do not
    matter. Raises `BackendError` where it cannot be loaded whole or takes no audio.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "auto",
        max_new_tokens: int = 512,
    ) -> None:
        try:
            self.processor = AutoProcessor.from_pretrained(name, revision=revision)
            self.extractor = _audio_part(self.processor, name)
            config = AutoConfig.from_pretrained(name, revision=revision)
            self.model, loading = _model_class(config).from_pretrained(
                name,
                revision=revision,
                dtype=dtype,
                device_map="auto" if device == "auto" else None,
                output_loading_info=True,
            )
        except BackendError:
            raise
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise BackendError(
                f"{name} cannot be loaded as an audio-language model of Transformers: {error}"
            ) from error
        if missing := sorted(loading["missing_keys"]):
            raise BackendError(
                f"{name} lacks {len(missing)} tensors ({', '.join(missing[:3])}, …), which would be random; get it again"
            )
        if device != "auto":
            self.model.to(device)
        self.model.eval()
        self.name, self.revision, self.max_new_tokens = name, revision, max_new_tokens
        self.commit: str | None = getattr(config, "_commit_hash", None)
        self.sampling_rate: int = self.extractor.sampling_rate
        self.tokenizer = self.processor.tokenizer
        self.tokenizer.padding_side = "left"  # a reply begins where the prompt ends
        self.model.generation_config = _greedy(self.model.generation_config, self.tokenizer)
        self.stop_ids: frozenset[int] = frozenset(self.model.generation_config.eos_token_id)
        self.tokenizer.pad_token_id = self.model.generation_config.pad_token_id
        self.weights = weights_digest(self.model)

    @property
    def settings(self) -> dict[str, Any]:
        """See `Backend`. The digest is that of the weights in memory, so that name and folder are no part of it."""
        return {
            "backend": "transformers",
            "class": type(self.model).__name__,
            "weights": self.weights,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "decoding": "greedy",
            "max_new_tokens": self.max_new_tokens,
        }

    def ask(self, waveform: NDArray[np.float32] | None, turns: Sequence[Turn]) -> Reply:
        """See `Backend`. Raises `ClipError` for a clip that the model's processor would cut without a word."""
        if waveform is not None and (heard := self.heard(waveform)) < len(waveform):
            rate = self.sampling_rate
            raise ClipError(
                f"the clip has {len(waveform) / rate:.1f} s, the model hears {heard / rate:.1f} s of it; --max_seconds "
                f"{heard // rate} captions the beginning of each clip, or split the clips first"
            )
        return self.replies(self.inputs([Conversation(waveform, turns)]), self.max_new_tokens)[0]

    def stop(self) -> None:
        """See `Backend`: nothing waits here."""

    def inputs(self, conversations: Sequence[Conversation]) -> Any:
        """What `forward` takes, padded on the left, by name; conversations with a clip or ones without, not both in a batch.

        Not every processor can tell which of a batch's texts a clip belongs to.
        """
        inputs = self.processor.apply_chat_template(
            [messages(conversation) for conversation in conversations],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"text_kwargs": {"padding": True}},  # the features' padding is the processor's own
        )
        return inputs.to(self.model.device, dtype=self.model.dtype)

    @torch.inference_mode()
    def replies(self, inputs: Any, max_new_tokens: int) -> list[Reply]:
        """Greedy replies to a batch of `inputs`, in order."""
        prompt = inputs["input_ids"].shape[1]
        output = self.model.generate(**inputs, max_new_tokens=max_new_tokens)[:, prompt:].tolist()
        lengths = inputs["attention_mask"].sum(1).tolist()
        return [self._reply(new, length) for new, length in zip(output, lengths, strict=True)]

    def heard(self, waveform: NDArray[np.float32]) -> int:
        """How many samples from the beginning of `(S,)` reach the model; the rest its processor drops without a word.

        Whisper's feature extractor keeps 30 s; Audio Flamingo 3 and others give it windows of a longer clip. The masks of what
        the processor makes tell; where there is none, all counts as heard.
        """
        samples = len(waveform)
        if samples <= getattr(self.extractor, "n_samples", 0):
            return samples
        inputs = self.inputs([Conversation(waveform, [Turn("user", "?")])])
        masks = [value for name, value in inputs.items() if name.endswith(("feature_attention_mask", "features_mask"))]
        hop = getattr(self.extractor, "hop_length", None)
        if not masks or not hop:
            return samples
        heard = int(sum(mask.sum() for mask in masks)) * hop
        return samples if heard + self.sampling_rate // 10 >= samples else heard

    def _reply(self, new: list[int], prompt_tokens: int) -> Reply:
        end = next((place + 1 for place, token in enumerate(new) if token in self.stop_ids), None)
        text = self.tokenizer.decode(new[:end], skip_special_tokens=True)
        return Reply(text, prompt_tokens, end or len(new), cut=end is None)


def messages(conversation: Conversation) -> list[dict[str, Any]]:
    """The conversation in Transformers' form, its audio in front of the first text."""
    turns: list[dict[str, Any]] = [
        {"role": turn.role, "content": [{"type": "text", "text": turn.text}]} for turn in conversation.turns
    ]
    if conversation.waveform is not None:
        turns[0]["content"].insert(0, {"type": "audio", "audio": conversation.waveform})
    return turns


def _model_class(config: Any) -> Any:
    """The class that the checkpoint names, or, where it names none that generates, what the Auto class has for its type."""
    if config.model_type in THINKERS:
        return getattr(transformers, THINKERS[config.model_type])
    for name in getattr(config, "architectures", None) or ():
        own = getattr(transformers, name, None)
        if own is not None and hasattr(own, "generate"):
            return own
    return AutoModelForMultimodalLM


def _audio_part(processor: Any, name: str) -> Any:
    """The part of a processor that takes waveforms, with its rate. Raises `BackendError` where there is none, or no template."""
    parts = (getattr(processor, part, None) for part in ("feature_extractor", "audio_processor"))
    found = next((part for part in parts if hasattr(part, "sampling_rate")), None)
    if found is None or not getattr(processor, "chat_template", None):
        lack = "no audio" if found is None else "no conversation: a chat template is missing"
        raise BackendError(f"{name}: its processor {type(processor).__name__} takes {lack}")
    return found


def _greedy(saved: GenerationConfig, tokenizer: Any) -> GenerationConfig:
    """Only the ids of a checkpoint's generation settings: a penalty for repetition changes greedy answers, too."""
    ends = saved.eos_token_id if saved.eos_token_id is not None else tokenizer.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    if not ends:
        raise BackendError("the checkpoint names no token that ends a turn (eos_token_id of generation_config.json)")
    pads = (saved.pad_token_id, tokenizer.pad_token_id, ends[0])
    pad = next(token for token in pads if token is not None)
    return GenerationConfig(bos_token_id=saved.bos_token_id, eos_token_id=ends, pad_token_id=pad, do_sample=False)
