"""TRL's own DPOTrainer and GRPOTrainer, given ids and a grammar where they would tokenise text and sample anything."""

from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import LogitsProcessorList
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

from alm.generation.grammar import AudioGrammar, GrammarLogitsProcessor
from alm.processing import AudioLanguageProcessor
from alm.training.trl_parts import CompleteCheckpoints, fit_device


@dataclass
class PairConfig(DPOConfig):
    """DPOConfig whose defaults also run where there is no accelerator."""

    def __post_init__(self) -> None:
        fit_device(self, super().__post_init__)


@dataclass
class QuestionConfig(GRPOConfig):
    """GRPOConfig whose defaults also run where there is no accelerator."""

    def __post_init__(self) -> None:
        fit_device(self, super().__post_init__)


class PairTrainer(CompleteCheckpoints, DPOTrainer):
    """DPOTrainer over columns of ids (`alm.preference.pairs`). Loss, reference and metrics are TRL's."""

    def __init__(self, *args: Any, processor: AudioLanguageProcessor, **kwargs: Any) -> None:
        # not as `processing_class`: TRL takes a processor's model for a vision model
        super().__init__(*args, processing_class=processor.tokenizer, **kwargs)
        self.processor = processor

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """Nothing: it is ids already. TRL 1.16 has no switch for that in DPO, and would ask for text."""
        return dataset


class QuestionTrainer(CompleteCheckpoints, GRPOTrainer):
    """GRPOTrainer over prompts that are text with audio tokens in it (`alm.preference.questions`); its turns obey `grammar` where given.

    TRL 1.16 has no argument for a logits processor, so the model's own `generate` gets it. The loss is TRL's: the probability of a
    turn is that of the whole vocabulary, though it was drawn from the allowed ids alone.
    """

    def __init__(
        self, model: Any, *args: Any, processor: AudioLanguageProcessor, grammar: AudioGrammar | None, **kwargs: Any
    ) -> None:
        super().__init__(model, *args, processing_class=processor.tokenizer, **kwargs)
        self.processor = processor
        if grammar is not None:
            generate_under(model, grammar, processor)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """TRL's sampler, with an order by the number of the epoch.

        TRL 1.16 seeds it once, so that a run that goes on in a later epoch would take up the first one's order.
        """
        sampler = super()._get_train_sampler(dataset)
        if sampler.shuffle:
            sampler.set_epoch = lambda epoch: sampler.generator.manual_seed(self.args.seed + epoch)
        return sampler


def generate_under(model: Any, grammar: AudioGrammar, processor: AudioLanguageProcessor) -> None:
    """Make a model's `generate` obey the grammar; an adapter around the model asks the same `generate`."""
    generate, forbid = model.generate, GrammarLogitsProcessor(grammar, processor.tokenizer, 0)

    def obedient(*args: Any, input_ids: Any, **kwargs: Any) -> Any:
        forbid.prompt_length = input_ids.shape[1]
        return generate(*args, input_ids=input_ids, logits_processor=LogitsProcessorList([forbid]), **kwargs)

    model.generate = obedient
