"""Stage-1 training on Transformers' Trainer: what is logged, what is decayed, and the codebook's care. The losses are the model's."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerState

from codec.codebook import count_hits, perplexity, restart_dead_codes
from codec.data import CropDataset
from codec.modeling import EntangleCodecForPreTraining

LOSSES = ("flow_loss", "contrastive_loss", "vq_loss")
NOT_DECAYED = ("norm", "bias", "cls", "codebook", "logit_scale", "segment", "positions")


class ScheduleError(ValueError):
    """A run whose steps do not fit each other."""


class SetEpoch(TrainerCallback):
    """Tells the crops their epoch. Accelerate does so too, but not in the epoch that a resumed run starts in."""

    def __init__(self, crops: CropDataset) -> None:
        self.crops = crops

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Called before the epoch's first batch is read; `state.epoch` counts fractions."""
        self.crops.set_epoch(math.floor((state.epoch or 0.0) + 1e-6))


class CodecTrainer(Trainer):
    """Trainer of `EntangleCodecForPreTraining`.

    Every `restart_every` steps until step `restart_until` dead codes move onto current latents (`codec.codebook`). The last part
    of a run is left alone, so that the codebook can settle. The first `quantize_after` steps run on unquantised latents: the
    decoder first learns that they are worth reading, which spreads them; then the codebook starts on them.
    """

    def __init__(
        self,
        *args: Any,
        quantize_after: int = 0,
        restart_every: int = 20,
        restart_until: int = 0,
        restart_threshold: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if 0 < self.args.max_steps <= quantize_after:
            raise ScheduleError(
                f"quantising starts after {quantize_after} steps, but the run has {self.args.max_steps}: its codebook would never be "
                "trained. Lower --quantize_after or raise --max_steps"
            )
        self.quantize_after, self.restart_threshold = quantize_after, restart_threshold
        self.restart_every, self.restart_until = restart_every, restart_until
        self._sums: dict[str, float] = dict.fromkeys(LOSSES, 0.0)
        self._batches = self._restarted = 0

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weight decay for matrices only: not for norms, biases, [CLS], codebook or temperature."""
        return [
            name
            for name, parameter in model.named_parameters()
            if parameter.ndim > 1 and not any(word in name.split(".")[-1] for word in NOT_DECAYED)
        ]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """The model's loss; its parts are summed for the log, its codes kept for the codebook's care."""
        outputs = model(**inputs)
        if model.training:
            self._outputs, self._mask = outputs, inputs.get("attention_mask")
            for name in LOSSES:
                self._sums[name] += float(outputs[name])
            self._batches += 1
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward pass, then the codebook's care (before the optimizer's step)."""
        bare: EntangleCodecForPreTraining = self.accelerator.unwrap_model(model)
        bare.quantizing = self.state.global_step >= self.quantize_after
        loss = super().training_step(model, *args, **kwargs)
        codes, latents = self._outputs.codes, self._outputs.latents
        count_hits(bare.code_hits, codes, self._mask)
        step = self.state.global_step + 1
        starting = step == self.quantize_after
        due = step > self.quantize_after and step <= self.restart_until and step % self.restart_every == 0
        if starting:
            bare.code_hits.zero_()  # what the unquantised steps hit says nothing: every row starts on a latent
        if self.accelerator.sync_gradients and (starting or due):
            real = latents.reshape(-1, latents.shape[-1]) if self._mask is None else latents[self._mask.bool()]
            optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
            codebook = bare.codec.quantizer.codebook
            self._restarted += restart_dead_codes(codebook, bare.code_hits, real, optimizer, self.restart_threshold)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the three losses, the codebook's perplexity and the number of restarted codes to each training log."""
        if "loss" in logs and self._batches:
            logs |= {name: round(self._sums[name] / self._batches, 4) for name in LOSSES}
            hits = self.accelerator.unwrap_model(self.model).code_hits.double().cpu()
            logs |= {"code_perplexity": round(perplexity(hits), 1), "restarted": self._restarted}
            self._sums, self._batches, self._restarted = dict.fromkeys(LOSSES, 0.0), 0, 0
        super().log(logs, *args, **kwargs)

    @torch.no_grad()
    def prediction_step(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Any:
        """Validation loss alone: the model fixes times and noise in evaluation mode."""
        return model(**self._prepare_inputs(inputs)).loss.detach(), None, None
