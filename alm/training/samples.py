"""What a model says, and sounds like, while it is being trained: fixed requests answered every so many steps, kept as files."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from accelerate.utils import is_peft_model
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alm.data.example import DataError
from alm.generation.tasks import answer, make_sound, prompt_ids, require_waveforms, span_grammar, speak
from alm.processing import AudioLanguageProcessor
from alm.prompts import question_messages, sound_messages, speech_messages
from alm.scoring.sound.spectrograms import spectrograms
from alm.training.processes import uses_fsdp, whole_models
from alm.training.run import SAMPLES
from alm.training.training_log import drop_later

Kind = Literal["ask", "speak", "sound"]
LOG = "samples.jsonl"
ANSWER_TOKENS = 64


class Request(NamedTuple):
    """One sample: a text to speak, a caption to make the sound of, or a question (about `audio`)."""

    kind: Kind
    text: str
    audio: str | None = None

    @classmethod
    def parse(cls, value: str) -> "Request":
        """From `speak=TEXT`, `sound=CAPTION`, `ask=QUESTION` or `ask=FILE|QUESTION`. Raises `DataError` naming these."""
        kind, found, text = value.partition("=")
        if not found or kind not in get_args(Kind) or not text.strip():
            raise DataError(
                f"--samples {value!r}: speak=TEXT, sound=CAPTION, ask=QUESTION or ask=FILE|QUESTION expected"
            )
        audio, bar, question = text.partition("|") if kind == "ask" else ("", "", text)
        return cls(kind, question if bar or kind != "ask" else text, audio if bar else None)  # type: ignore[arg-type]

    def require_file(self) -> None:
        """Raise `DataError` where the file asked about is not there."""
        if self.audio is not None and not Path(self.audio).is_file():
            raise DataError(f"--samples ask={self.audio}|{self.text}: there is no file {self.audio}")


def require_one_whole_model(args: TrainingArguments) -> None:
    """Raise `DataError` under FSDP, which leaves no process with the whole model that answers."""
    if uses_fsdp(args):
        raise DataError(
            "--samples needs the whole model on one process, and FSDP shards it; leave it out, or use DeepSpeed"
        )


class Samples(TrainerCallback):
    """Answers `requests` every `every` steps and at the end, on one process: `samples/<step>-<n>.wav` and `.png`, texts in `samples.jsonl`.

    Draws have their own seed and training's random state is not touched, so that a run with samples is the run without. `gather` is
    entered on every process around each time: inside, the trained model is whole (`SequenceTrainer.whole_model`). Raises `DataError`
    under FSDP, for which there is no such thing here.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        processor: AudioLanguageProcessor,
        folder: Path,
        args: TrainingArguments,
        every: int,
        max_seconds: float = 8.0,
        gather: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        require_one_whole_model(args)
        self.requests, self.processor, self.folder = list(requests), processor, folder / SAMPLES
        self.every, self.max_seconds, self.gather = every, max_seconds, gather
        with whole_models(args):  # the codec, which the first process uses alone
            for request in self.requests:  # now, not after the first thousand steps
                self._require_answerable(request)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Drop the log's lines behind the step that training starts from: their samples are made again."""
        if state.is_world_process_zero:
            drop_later(self.folder / LOG, state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Make the samples of this step where it is one for them."""
        due = state.global_step % self.every == 0 or state.global_step == state.max_steps
        if not due:
            return
        with self.gather():
            if state.is_world_process_zero:
                self.make(model, state.global_step)

    def make(self, model: Any, step: int) -> None:
        """Answer all requests now. The model is left as it was found."""
        self.folder.mkdir(parents=True, exist_ok=True)
        attention, training, cached = model.config._attn_implementation, model.training, model.config.use_cache
        model.set_attn_implementation("sdpa")
        model.config.use_cache = True
        model.eval()
        try:
            rows = [self._sample(model, step, number, request) for number, request in enumerate(self.requests)]
        finally:
            model.train(training)
            model.config.use_cache = cached
            model.set_attn_implementation(attention)
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"step": step, **row}, ensure_ascii=False) + "\n" for row in rows)

    def _require_answerable(self, request: Request) -> None:
        """Raise what answering would: no codec, one without a vocoder, a clip that cannot be read, a text without room."""
        if request.kind == "ask":
            clip = None if request.audio is None else {"type": "audio", "path": request.audio}
            prompt_ids(self.processor, [question_messages(request.text, clip)], ANSWER_TOKENS)
            return
        require_waveforms(self.processor)
        messages = speech_messages if request.kind == "speak" else sound_messages
        grammar = span_grammar(self.processor.vocabulary, 0, self.max_seconds)
        prompt_ids(self.processor, [messages(request.text)], grammar.max_span_ids + 1)

    def _sample(self, model: Any, step: int, number: int, request: Request) -> dict[str, Any]:
        inner = model.get_base_model() if is_peft_model(model) else model
        if request.kind == "ask":
            said = answer(
                inner, self.processor, request.text, request.audio, max_new_tokens=ANSWER_TOKENS, sliced=False
            )
            return {"ask": request.text, "audio": request.audio, "answer": said}
        make = speak if request.kind == "speak" else make_sound
        limit = {"max_seconds": self.max_seconds, "sliced": not is_peft_model(model)}
        sound = make(inner, self.processor, request.text, seed=number, **limit)
        name = f"{step:06d}-{number}"
        sound.save(self.folder / f"{name}.wav")
        self._draw(sound.waveform, sound.sampling_rate, request.text, self.folder / f"{name}.png")
        return {
            request.kind: request.text,
            "file": f"{name}.wav",
            "seconds": sound.seconds,
            "forced_end": sound.forced_end,
        }

    def _draw(self, waveform: Any, rate: int, title: str, path: Path) -> None:
        from matplotlib.image import imsave

        imsave(path, spectrograms({title[:80]: waveform}, rate))
