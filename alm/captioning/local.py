"""A model on this machine: any audio-language model of Transformers, through its own class, processor and chat template."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor

from alm.captioning.backend import BackendError, ClipError, Reply, Turn
from alm.scoring.manifest import weights_digest


class LocalModel:
    """`Backend` over `generate`, greedy, one clip at a time: in a batch, padding would change the captions of some models.

    `name` is a folder or a Hub id, `revision` its branch, tag or commit; `dtype` a torch dtype's name or `auto`. No code of the
    checkpoint is run. Raises `BackendError` where it cannot be loaded or takes no audio.
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
            config = AutoConfig.from_pretrained(name, revision=revision)
            self.model = _model_class(config).from_pretrained(name, revision=revision, dtype=dtype).to(device).eval()
        except (OSError, ValueError, KeyError) as error:
            raise BackendError(
                f"{name} cannot be loaded as an audio-language model of Transformers: {error}"
            ) from error
        extractor: Any = getattr(self.processor, "feature_extractor", None)
        if not hasattr(extractor, "sampling_rate"):
            raise BackendError(
                f"{name} takes no audio: its processor {type(self.processor).__name__} has no rate for it"
            )
        self.name, self.revision, self.max_new_tokens = name, revision, max_new_tokens
        self.commit: str | None = getattr(config, "_commit_hash", None)
        self.extractor = extractor
        self.sampling_rate: int = extractor.sampling_rate
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

    @torch.inference_mode()
    def ask(self, waveform: NDArray[np.float32], turns: Sequence[Turn]) -> Reply:
        """See `Backend`. Raises `ClipError` for a clip that the model's processor would cut without a word."""
        first, *rest = turns
        content = [{"type": "audio", "audio": waveform}, {"type": "text", "text": first.text}]
        messages = [
            {"role": "user", "content": content},
            *({"role": turn.role, "content": [{"type": "text", "text": turn.text}]} for turn in rest),
        ]
        inputs = self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        self._check_heard(inputs, len(waveform))
        inputs = inputs.to(self.model.device, dtype=self.model.dtype)
        size = inputs["input_ids"].shape[1]
        output = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.max_new_tokens)
        new = output[0, size:]
        text = self.processor.batch_decode(new[None], skip_special_tokens=True)[0]
        return Reply(text, size, len(new), cut=len(new) >= self.max_new_tokens)

    def stop(self) -> None:
        """See `Backend`: nothing waits here."""

    def _check_heard(self, inputs: Any, samples: int) -> None:
        """Whisper's feature extractor keeps 30 s and drops the rest: its mask tells how much the model hears."""
        masks = [value for name, value in inputs.items() if name.endswith(("feature_attention_mask", "features_mask"))]
        hop = getattr(self.extractor, "hop_length", None)
        if not masks or not hop:
            return
        heard = int(sum(mask.sum() for mask in masks)) * hop
        if heard + self.sampling_rate // 10 < samples:
            rate = self.sampling_rate
            raise ClipError(
                f"the clip has {samples / rate:.1f} s, the model hears {heard / rate:.1f} s of it; --max_seconds "
                f"{heard // rate} captions the beginning of each clip, or split the clips first"
            )


def _model_class(config: Any) -> Any:
    """The class that the checkpoint names, or, where it names none that generates, what the Auto class has for its type."""
    for name in getattr(config, "architectures", None) or ():
        own = getattr(transformers, name, None)
        if own is not None and hasattr(own, "generate"):
            return own
    return AutoModelForMultimodalLM
