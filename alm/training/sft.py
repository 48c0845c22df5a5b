"""Supervised fine-tuning on packed token sequences with TRL's SFTTrainer, in the form that is right and fast on any device."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
from trl.models import unwrap_model_for_generation

from alm.adapters import merge
from alm.checkpoint import load_checkpoint, save_checkpoint
from alm.data.example import DataError
from alm.encoding import IGNORED
from alm.processing import AudioLanguageProcessor
from alm.training.attention import use_attention
from alm.training.cross_entropy import cross_entropy_in_place
from alm.training.run import ADAPTER
from alm.training.saving import ASIDE, put_contents_in_place, rotate, writing
from alm.training.stopping import StopAtSignal
from alm.training.training_log import JsonLinesLog
from alm.training.trl_parts import CompleteCheckpoints, fit_device


@dataclass
class SequenceConfig(SFTConfig):
    """SFTConfig whose defaults also run where there is no accelerator."""

    def __post_init__(self) -> None:
        own: Any = self
        fit_device(own, super().__post_init__)
        if not own.packing or own.packing_strategy != "bfd" or own.max_length is None:
            raise ValueError(
                "sequences are trained packed: leave packing on, packing_strategy at bfd (the others cut sequences), and give max_length"
            )


class SequenceTrainer(CompleteCheckpoints, SFTTrainer):
    """SFTTrainer that, on a CPU too, computes logits of labelled positions only.

    TRL scores just the labelled positions where it has its GPU kernels, and every position elsewhere. In question answering under 5 %
    of the tokens are labelled, so on a CPU the head would cost more than the model (2.6 × per step at 168 k rows). Loss and gradients
    are the same; a test holds them equal to TRL's own and to plain cross-entropy.
    """

    def __init__(self, *args: Any, processor: AudioLanguageProcessor, **kwargs: Any) -> None:
        # not as `processing_class`: TRL takes a processor's model for a vision model
        super().__init__(*args, processing_class=processor.tokenizer, **kwargs)
        self.processor = processor
        self._counts = torch.zeros(2)  # correct, labelled

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Summed cross-entropy of the labelled positions over their number in the whole batch."""
        plain = self.args.loss_type == "nll" and self.args.label_smoothing_factor == 0 and not return_outputs
        if inputs["input_ids"].device.type != "cpu" or len(inputs["input_ids"]) != 1 or not plain:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        following = inputs["labels"][0, 1:]
        positions = (following != IGNORED).nonzero().flatten()
        targets = following[positions]
        others = {name: value for name, value in inputs.items() if name != "labels"}
        logits = model(**others, use_cache=False, logits_to_keep=positions).logits[0].float()
        count = max(float(len(targets) if num_items_in_batch is None else num_items_in_batch), 1.0)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            count /= self.accelerator.num_processes  # the count is over all processes, and DDP averages gradients
        loss, correct = cross_entropy_in_place(logits, targets, count)
        self._counts += torch.tensor([float(correct), float(len(targets))])
        return loss

    def log_sums(self) -> dict[str, Any]:
        """Also the counts of labelled tokens."""
        return {**super().log_sums(), "counts": self._counts.tolist()}

    def take_log_sums(self, sums: dict[str, Any]) -> None:
        """Go on from `log_sums`."""
        super().take_log_sums(sums)
        self._counts = torch.tensor(sums["counts"])

    def shared_sums(self, sums: list[dict[str, Any]]) -> dict[str, Any]:
        """Counts are added up over processes: one of them has all."""
        counts = [sum(column) for column in zip(*(one["counts"] for one in sums), strict=True)]
        return {**super().shared_sums(sums), "counts": counts if self.args.process_index == 0 else [0.0] * len(counts)}

    def whole_model(self) -> AbstractContextManager[Any]:
        """For all processes to enter: inside, each has all weights in place (under ZeRO-3, which shards them; always so elsewhere)."""
        kept = self.args.gradient_checkpointing_kwargs
        return unwrap_model_for_generation(self.model_wrapped, self.accelerator, gradient_checkpointing_kwargs=kept)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the share of labelled tokens that were the model's first choice."""
        correct, labelled = self.accelerator.reduce(self._counts.to(self.accelerator.device)).tolist()
        if labelled:
            logs["mean_token_accuracy"] = correct / labelled
        self._counts.zero_()
        super().log(logs, start_time)


def build_trainer(
    model: Any,
    processor: AudioLanguageProcessor,
    rows: torch.utils.data.Dataset[dict[str, Any]],
    args: SequenceConfig,
    attention: str = "auto",
) -> SequenceTrainer:
    """A trainer over packed `rows` (columns `input_ids`, `labels`, `seq_lengths`: `alm.data.rows`), taken in the order they stand in.

    `model`: a language model, all of whose weights are trained, or one wrapped by `alm.training.lora.with_lora`.
    `attention`: `auto` takes flash-attention 2 where it is installed for this device, else PyTorch's kernel document by document.
    Raises `DataError` where there is nothing to train on.
    """
    if not len(rows):  # type: ignore[arg-type]
        raise DataError("no sequences to train on; name at least one data set whose audio is in the token store")
    # rows come packed and mixed: TRL need not prepare them, and a sampler that shuffled would undo the mixture
    args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
    args.train_sampling_strategy, args.remove_unused_columns = "sequential", False
    use_attention(model, attention, args.use_cpu)
    trainer = SequenceTrainer(
        model=model,
        args=args,
        train_dataset=_by_position(rows),
        processor=processor,
        callbacks=[JsonLinesLog(args.output_dir), StopAtSignal()],
    )
    if is_quantized(model):  # TRL makes what is trained bfloat16, in which AdamW's small steps are lost
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return trainer


def is_quantized(model: Any) -> bool:
    """Whether the weights are held in 4 bits."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


def _by_position(rows: Any) -> Dataset:
    """Rows as a data set of `datasets`, the form that TRL takes: positions, each spelled out when it is asked for."""
    # no closure: a data loader's workers that are not forked (macOS; Linux from Python 3.14 on) get it pickled
    return Dataset.from_dict({"position": np.arange(len(rows))}).with_transform(partial(_spell_out, rows))


def _spell_out(rows: Any, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
    found = [rows[position] for position in batch["position"]]
    return {name: [row[name] for row in found] for name in ("input_ids", "labels", "seq_lengths")}


def save_final(trainer: Any) -> None:
    """Write the trained model as a complete checkpoint into the trainer's output folder, aside first: no file there is ever half written.

    LoRA's adapter goes into `adapter/` of it and is merged into the trainer's model: the output folder is a plain checkpoint again.
    """
    output = Path(trainer.args.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.config.use_cache = True
    model.set_attn_implementation("sdpa")
    new = output / ASIDE / "final"
    with writing(output, output):
        if is_peft_model(model):
            trainer.save_model(str(new / ADAPTER), _internal_call=True)
            if trainer.is_world_process_zero():
                # merged into 4 bits an adapter would be rounded to them: the base is loaded again as it was
                whole = load_checkpoint(new / ADAPTER, check_codec=False).model if is_quantized(model) else merge(model)
                save_checkpoint(whole, trainer.processor, new)
        else:
            trainer.save_model(str(new), _internal_call=True)
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            rotate(
                output, trainer.args.save_total_limit
            )  # a run that was killed between its last save and this did not
            _put_final_in_place(new, output)
        trainer.accelerator.wait_for_everyone()
    if trainer.args.push_to_hub:
        trainer.push_to_hub(commit_message="Model save", revision=trainer.args.hub_revision)


def _put_final_in_place(new: Path, output: Path) -> None:
    for folder in (new, new / ADAPTER):
        # a pickle; the manifest says it all
        (folder / "training_args.bin").unlink(missing_ok=True)
    for old in output.glob("model*.safetensors*"):
        if not (new / old.name).exists():  # a shard of an earlier run's weights
            old.unlink()
    put_contents_in_place(new, output)
