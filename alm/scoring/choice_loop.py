"""The run of a model over a multiple-choice benchmark: each clip encoded once, answers logged batch by batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm
from transformers import PreTrainedModel

from alm.data.example import Message
from alm.encoding import IGNORED
from alm.generation.tasks import require_room
from alm.processing import AudioLanguageProcessor, LengthError
from alm.prompts import multiple_choice_prompt
from alm.scoring.answering import greedy_texts
from alm.scoring.choices import bare_answer
from alm.scoring.clips import Clips, require_clips
from alm.scoring.item_log import ItemLog, Row
from alm.scoring.loglikelihood import score_choices
from alm.scoring.multiple_choice import Answer, Answers, Question, candidates, correct
from alm.vocabulary import ContractError
from codec.audio import AudioError
from codec.base import Codes


@dataclass(frozen=True)
class LoopSettings:
    """What a run computes. Everything but `batch_size` changes rows and belongs to the resume key."""

    generation: bool = True
    loglikelihood: bool = True
    control: bool = True
    max_new_tokens: int = 128
    batch_size: int = 8

    def scores(self) -> list[str]:
        """Names of the scores that come of it."""
        return ["official", "option"] * self.generation + ["loglikelihood", "loglikelihood_mean"] * self.loglikelihood

    def decoding(self) -> dict[str, Any]:
        """For manifest and resume key."""
        return {
            "generation": "greedy, text tokens only, cut to the bare answer" if self.generation else None,
            "max_new_tokens": self.max_new_tokens,
            "loglikelihood": "sum over the choice and its end of turn" if self.loglikelihood else None,
            "no_audio_control": self.control,
        }

    def unavailable(self) -> dict[str, str]:
        """Scores that were switched off, and how to have them."""
        off = {"official": self.generation, "option": self.generation, "loglikelihood": self.loglikelihood}
        flags = {"official": "--no_generation", "option": "--no_generation", "loglikelihood": "--no_loglikelihood"}
        return {name: f"switched off; run again without {flags[name]}" for name, on in off.items() if not on}


class Asked(NamedTuple):
    """A question as ids: the prompt `(L,)`, and the answer that each choice would be, by its position."""

    item: Question
    ids: list[int]
    choices: dict[int, list[int]]


class ChoiceLoop:
    """Answers questions with a model, in batches of clips of similar length, longest first (memory runs out at once or never).

    Batches are cut from the whole benchmark and not from what is left of it: a resumed run computes the same batches and so
    the same rows to the last bit.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: AudioLanguageProcessor,
        paths: Mapping[str, Path],
        settings: LoopSettings,
    ) -> None:
        self.model, self.processor, self.paths, self.settings = model.eval(), processor, paths, settings
        self.problems: dict[str, str] = {}
        self._last: dict[Path, Codes] = {}  # codes of the batch before

    def run(self, questions: Sequence[Question], clips: Clips, log: ItemLog, max_missing: float) -> Answers:
        """Answer every question that `log` does not hold yet; return all answers.

        Raises `DataError` when too many clips turn out to be unreadable; what was answered by then is in the log.
        """
        self.problems = dict(clips.problems)
        # questions about one clip stand together, so that its codes are at hand
        order = sorted(questions, key=lambda item: (-clips.seconds.get(item.id, 0.0), str(self.paths[item.id])))
        size = self.settings.batch_size
        with tqdm(total=len(order), desc="answering", unit="question") as bar:
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                if any(item.id not in log.rows for item in batch):
                    rows = self._rows(batch)
                    require_clips(self.problems, len(questions), max_missing)
                    log.append([row for row in rows if row["id"] not in log.rows])
                bar.update(len(batch))
        return collect(questions, log.rows)

    def _rows(self, batch: Sequence[Question]) -> list[Row]:
        codes = self._encode(batch)
        asked = self._ask([(item, codes[item.id]) for item in batch if item.id in codes])
        answers = self._answer(asked)
        silent = self._answer(self._ask([(item, None) for item in batch])) if self.settings.control else {}
        return [
            {
                "id": item.id,
                **answer.to_row(),
                "correct": correct(item, answer, self.settings.scores()),
                "no_audio": silent[item.id].to_row() if item.id in silent else None,
                "missing": self.problems.get(item.id),
            }
            for item in batch
            for answer in [answers.get(item.id, Answer())]
        ]

    def _encode(self, batch: Sequence[Question]) -> dict[str, Codes]:
        """Codes by question id; a clip that cannot be decoded becomes a problem, and the others of its batch are kept."""
        readable = [item.id for item in batch if item.id not in self.problems]
        by_path = {path: codes for path, codes in self._last.items() if path in {self.paths[i] for i in readable}}
        paths = [path for path in dict.fromkeys(self.paths[i] for i in readable) if path not in by_path]
        try:
            by_path |= dict(zip(paths, self.processor.encode_audio(paths), strict=True)) if paths else {}
        except (AudioError, LengthError):
            for path in paths:
                try:
                    by_path[path] = self.processor.encode_audio([path])[0]
                except (AudioError, LengthError) as error:
                    self.problems.update((i, str(error)) for i in readable if self.paths[i] == path)
        self._last = by_path
        return {item_id: by_path[self.paths[item_id]] for item_id in readable if self.paths[item_id] in by_path}

    def _ask(self, pairs: Sequence[tuple[Question, Codes | None]]) -> list[Asked]:
        """Ids of the questions; one too long for the model or for its answer becomes a problem: nothing is cut to fit."""
        asked = []
        for item, codes in pairs:
            audio = [] if codes is None else [{"type": "audio", "codes": codes}]
            text = {"type": "text", "text": multiple_choice_prompt(item.question, item.choices)}
            prompt: list[Message] = [{"role": "user", "content": [*audio, text]}]
            try:
                ids = self.processor.encode_messages(prompt, add_generation_prompt=True)
                if self.settings.generation:
                    require_room(self.processor, len(ids), self.settings.max_new_tokens, "--max_new_tokens")
                wanted = candidates(item.choices) if self.settings.loglikelihood else []
                asked.append(Asked(item, ids, {i: self._choice_ids(prompt, ids, item.choices[i]) for i in wanted}))
            except LengthError as error:
                self.problems[item.id] = f"question {item.id}: {error}"
        return asked

    def _choice_ids(self, prompt: list[Message], ids: Sequence[int], choice: str) -> list[int]:
        """The ids on which the model would have been trained for this answer, its end of turn included."""
        answer: Message = {"role": "assistant", "content": [{"type": "text", "text": choice}]}
        trained = self.processor.training_ids([*prompt, answer])
        if list(trained.input_ids[: len(ids)]) != list(ids):
            raise ContractError(
                "the chat template writes another prompt for training than for generation: the model would be asked in a form "
                "that it has never seen. Compare the checkpoint's chat template with the one that it was trained with."
            )
        return [token for token, label in zip(trained.input_ids, trained.labels, strict=True) if label != IGNORED]

    def _answer(self, asked: Sequence[Asked]) -> dict[str, Answer]:
        answers = [Answer(prompt_tokens=len(question.ids)) for question in asked]
        if self.settings.generation and asked:
            generated = greedy_texts(
                self.model, self.processor, [question.ids for question in asked], self.settings.max_new_tokens
            )
            answers = [
                replace(
                    answer,
                    prediction=bare_answer(text, question.item.choices),
                    generated=text,
                    truncated=not stopped,
                )
                for answer, question, (text, stopped) in zip(answers, asked, generated, strict=True)
            ]
        if self.settings.loglikelihood:
            answers = [self._score(answer, question) for answer, question in zip(answers, asked, strict=True)]
        return {question.item.id: answer for question, answer in zip(asked, answers, strict=True)}

    def _score(self, answer: Answer, question: Asked) -> Answer:
        sums: list[float | None] = [None] * len(question.item.choices)
        tokens = [0] * len(sums)
        if question.choices:
            scores = score_choices(self.model, question.ids, list(question.choices.values()))
            for index, total, count in zip(question.choices, scores.sums, scores.tokens, strict=True):
                sums[index], tokens[index] = total, count
        return replace(answer, loglikelihood=sums, tokens=tokens)


def collect(questions: Sequence[Question], rows: Mapping[str, Row]) -> Answers:
    """Answers of the logged rows; a question without a clip has none, its control has."""
    found = {item.id: rows[item.id] for item in questions if item.id in rows}
    return Answers(
        answers={i: Answer.from_row(row) for i, row in found.items() if row["missing"] is None},
        no_audio={i: Answer.from_row(row["no_audio"]) for i, row in found.items() if row["no_audio"]},
    )
