"""What is held out from preference training, measured before the first step and after the last."""

from alm.training.before_after import BeforeAndAfter


class HeldOutRows(BeforeAndAfter):
    """The trainer's own evaluation of its `eval_dataset`."""

    def measured(self) -> dict[str, float]:
        """The trainer's metrics, which it also logs."""
        training = self.trainer.model.training
        found: dict[str, float] = self.trainer.evaluate()
        # TRL takes the averages of the mode that the model is in for the next entry of the log
        self.trainer.model.train(training)
        return found
