"""Stage-1 training on Transformers' Trainer: what is logged, what is decayed, and the codebook's care. The losses are the model's."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerState

from codec.codebook import count_hits, perplexity, restart_dead_codes
from codec.data import CropDataset
from codec.modeling import EntangleCodecForPreTraining
from codec.parts_trainer import PartsTrainer

LOSSES = ("flow_loss", "contrastive_loss", "vq_loss")
NOT_DECAYED = ("norm", "bias", "cls", "codebook", "logit_scale", "segment", "positions")


class SetEpoch(TrainerCallback):
    """Tells the crops their epoch. Accelerate does so too, but not in the epoch that a resumed run starts in."""

    def __init__(self, crops: CropDataset) -> None:
        self.crops = crops

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Called before the epoch's first batch is read; `state.epoch` counts fractions."""
        self.crops.set_epoch(math.floor((state.epoch or 0.0) + 1e-6))


class CodecTrainer(PartsTrainer):
    """Trainer of `EntangleCodecForPreTraining`.

    Every `restart_every` steps until step `restart_until` dead codes move onto current latents (`codec.codebook`). The last part
    of a run is left alone, so that the codebook can settle. Encoder and quantizer can have a learning rate of their own
    (`encoder_learning_rate`): they start as a good code of the frame, the decoder knows nothing, and a rate that suits the decoder
    makes the codes forget pitch before the decoder can ask for it.
    """

    def __init__(
        self,
        *args: Any,
        encoder_learning_rate: float | None = None,
        restart_every: int = 20,
        restart_until: int = 0,
        restart_threshold: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.encoder_learning_rate, self.restart_threshold = encoder_learning_rate, restart_threshold
        self.restart_every, self.restart_until = restart_every, restart_until
        self._restarted = 0

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weight decay for matrices only: not for norms, biases, [CLS], codebook or temperature."""
        return [
            name
            for name, parameter in model.named_parameters()
            if parameter.ndim > 1 and not any(word in name.split(".")[-1] for word in NOT_DECAYED)
        ]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Trainer's optimizer, its groups split where encoder and quantizer learn at their own rate."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        if self.encoder_learning_rate is not None:
            codec = self.accelerator.unwrap_model(self.model).codec
            own = {id(p) for part in (codec.encoder, codec.quantizer) for p in part.parameters()}
            for group in list(optimizer.param_groups):
                slow = [p for p in group["params"] if id(p) in own]
                group["params"] = [p for p in group["params"] if id(p) not in own]
                optimizer.add_param_group({**group, "params": slow, "lr": self.encoder_learning_rate})
        return optimizer

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """The model's loss; its parts are summed for the log, its codes kept for the codebook's care."""
        outputs = model(**inputs)
        if model.training:
            self._outputs, self._mask = outputs, inputs.get("attention_mask")
            self.count({name: outputs[name] for name in LOSSES})
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward pass, then the codebook's care (before the optimizer's step)."""
        loss = super().training_step(model, *args, **kwargs)
        bare: EntangleCodecForPreTraining = self.accelerator.unwrap_model(model)
        codes, latents = self._outputs.codes, self._outputs.latents
        count_hits(bare.code_hits, codes, self._mask)
        step = self.state.global_step + 1
        if self.accelerator.sync_gradients and step <= self.restart_until and step % self.restart_every == 0:
            real = latents.reshape(-1, latents.shape[-1]) if self._mask is None else latents[self._mask.bool()]
            optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
            codebook = bare.codec.quantizer.codebook
            self._restarted += restart_dead_codes(codebook, bare.code_hits, real, optimizer, self.restart_threshold)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the codebook's perplexity and the number of restarted codes to each training log, beside the three losses."""
        if "loss" in logs and self._counts:
            hits = self.accelerator.unwrap_model(self.model).code_hits.double().cpu()
            logs |= {"code_perplexity": round(perplexity(hits), 1), "restarted": self._restarted}
            self._restarted = 0
        super().log(logs, *args, **kwargs)

    def part_sums(self) -> dict[str, Any]:
        """Also the number of restarted codes."""
        return {**super().part_sums(), "restarted": self._restarted}

    def take_part_sums(self, sums: Mapping[str, Any]) -> None:
        """Go on from `part_sums`."""
        super().take_part_sums(sums)
        self._restarted = sums["restarted"]

    @torch.no_grad()
    def prediction_step(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Any:
        """Validation loss alone: the model fixes times and noise in evaluation mode."""
        return model(**self._prepare_inputs(inputs)).loss.detach(), None, None
