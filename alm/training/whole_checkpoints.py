"""Checkpoints of any of Transformers' trainers: there wholly or not at all whenever the run is killed, and with what its log has summed."""

import json
from pathlib import Path
from typing import Any

from alm.training.saving import ASIDE, checkpoint_name, put_in_place, rotate, writing
from alm.training.spread import read_spread, write_spread


class WholeCheckpoints:
    """Beside a trainer of Transformers: writes its checkpoints aside, with how the run was spread, and then puts them in place."""

    _aside: Path | None = None
    """Where a checkpoint is being written."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint aside, each process its files, and put it in its place when all have; then remove what is too many."""
        trainer: Any = self
        output, ranks = Path(trainer.args.output_dir), trainer.args.distributed_state
        place = output / checkpoint_name(trainer.state.global_step)
        self._name_best(output)
        with writing(place, output):
            self._aside = output / ASIDE
            try:
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
                if trainer.args.should_save:
                    write_spread(trainer.args, output / ASIDE / place.name)
            finally:
                self._aside = None
            ranks.wait_for_everyone()
            if ranks.is_main_process:
                put_in_place(output / ASIDE / place.name, place)
                rotate(output, trainer.args.save_total_limit, place)
            ranks.wait_for_everyone()
            if ranks.is_local_main_process and not place.exists():  # nodes that do not share the folder
                put_in_place(output / ASIDE / place.name, place)
            ranks.wait_for_everyone()
        if trainer.args.push_to_hub:
            trainer._push_from_checkpoint(str(place))

    def _name_best(self, output: Path) -> None:
        """What Trainer finds out by looking for the best step's folder beside the one that it writes."""
        state: Any = self.state  # type: ignore[attr-defined]
        if state.best_global_step:
            best = output / checkpoint_name(state.best_global_step)
            if state.best_global_step == state.global_step or best.exists():
                state.best_model_checkpoint = str(best)

    def _get_output_dir(self, trial: Any) -> str:
        """Where Trainer's and TRL's own methods write their part of a checkpoint."""
        return str(self._aside or super()._get_output_dir(trial))  # type: ignore[misc]

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload a checkpoint from its place, not from where it is being written."""
        if self._aside is None:
            super()._push_from_checkpoint(checkpoint_folder)  # type: ignore[misc]

    def _save_rng_state(self, output_dir: str) -> None:
        """Beside each process's random state what it has summed for the next entry of the log: an interruption changes no entry."""
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        text = json.dumps(self.log_sums(), default=float)
        (Path(output_dir) / self._sums_file()).write_text(text, encoding="utf-8")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)  # type: ignore[misc]
        if checkpoint is not None and (sums := self._sums_of(Path(checkpoint))):
            self.take_log_sums(sums)

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Trainer's own, with the mean loss of the whole run at its end: Trainer would take that of the steps since the interruption."""
        trainer: Any = self
        if "train_loss" in logs:
            logs["train_loss"] = trainer._total_loss_scalar / max(trainer.state.global_step, 1)
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def log_sums(self) -> dict[str, Any]:
        """What this process has summed since the last entry of the log, and up to it."""
        trainer: Any = self
        return {
            "loss": float(trainer._tr_loss),
            "logged_loss": trainer._total_loss_scalar,
            "logged_step": trainer._globalstep_last_logged,
        }

    def take_log_sums(self, sums: dict[str, Any]) -> None:
        """Go on from `log_sums`."""
        trainer: Any = self
        trainer._tr_loss += sums["loss"]
        trainer._total_loss_scalar = sums["logged_loss"]
        trainer._globalstep_last_logged = sums["logged_step"]

    def shared_sums(self, sums: list[dict[str, Any]]) -> dict[str, Any]:
        """What each process goes on from after those of another number of processes, whose `log_sums` these are.

        The log has the mean of what the processes sum here; what else they sum is the same on all.
        """
        return {**sums[0], "loss": sum(one["loss"] for one in sums) / len(sums)}

    def _sums_of(self, checkpoint: Path) -> dict[str, Any] | None:
        """What this process goes on from; None where nothing was kept."""
        args: Any = self.args  # type: ignore[attr-defined]
        own = checkpoint / self._sums_file()
        if read_spread(checkpoint).processes == args.world_size:
            return json.loads(own.read_text(encoding="utf-8")) if own.is_file() else None
        sums = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(checkpoint.glob("log_sums_*.json"))]
        return self.shared_sums(sums) if sums else None

    def _sums_file(self) -> str:
        args: Any = self.args  # type: ignore[attr-defined]
        return f"log_sums_{args.process_index}.json"
