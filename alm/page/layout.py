"""Where things are on the page; what they do is in `alm.page.actions`."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

import gradio as gr

from alm.checkpoint import LoadedCheckpoint
from alm.generation import make_sound, speak
from alm.generation.tasks import SPEECH_SAMPLING
from alm.page.actions import about, ask, longest_seconds, make, round_trip

Result = TypeVar("Result")
ONE_AT_A_TIME = {"concurrency_id": "model", "concurrency_limit": 1}
KEPT_SECONDS = 3600
"""How long uploads and results stay on the server's disk."""


def launch_options() -> dict[str, Any]:
    """What `Blocks.launch` is given: fonts of the reader's machine, nothing of other sites, no links out."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return {
        "theme": gr.themes.Soft(primary_hue="teal", neutral_hue="slate", **fonts),
        "css": ".gradio-container {max-width: 1000px !important; margin: 0 auto} footer {display: none !important}",
        "footer_links": [],
        "ssr_mode": False,
        "max_file_size": "100mb",
    }


def build(loaded: LoadedCheckpoint, name: str) -> gr.Blocks:
    """The page of a checkpoint, not yet served. Raises `ContractError` where no codec is known."""
    longest = longest_seconds(loaded.processor)
    line = about(loaded, name)
    with gr.Blocks(title=f"Entangle-ALM · {name}", analytics_enabled=False, delete_cache=(KEPT_SECONDS,) * 2) as page:
        gr.Markdown("# Entangle-ALM")
        gr.Markdown(line)
        with gr.Tab("Ask"):
            _ask(loaded)
        with gr.Tab("Speak"):
            _make(loaded, speak, "Sentence", "Good morning.", "Speak", longest)
        with gr.Tab("Make a sound"):
            _make(loaded, make_sound, "Caption", "rain on a tin roof", "Make the sound", longest)
        with gr.Tab("Codec round trip"):
            _round_trip(loaded)
    return page


def readable(action: Callable[..., Result]) -> Callable[..., Result]:
    """An action whose `ValueError`, a user's mistake, is shown as a sentence; anything else is a bug and keeps its traceback."""

    @wraps(action)
    def shown(*values: Any) -> Result:
        try:
            return action(*values)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return shown


def _ask(loaded: LoadedCheckpoint) -> None:
    with gr.Row():
        with gr.Column():
            clip = _clip_input()
            question = gr.Textbox(label="Question", placeholder="What is heard?")
            with gr.Accordion("Sampling", open=False):
                tokens = gr.Slider(1, 512, 64, step=1, label="Longest answer (tokens)")
                temperature, top_p, seed = _sampling(0.0, 1.0)
            button = gr.Button("Ask", variant="primary")
        with gr.Column():
            answer, note = gr.Textbox(label="Answer", lines=6, interactive=False), gr.Markdown()
    _when([button.click, question.submit], partial(ask, loaded), "ask",
          [clip, question, tokens, temperature, top_p, seed], [answer, note])  # fmt: skip


def _make(
    loaded: LoadedCheckpoint, task: Callable[..., Any], what: str, example: str, does: str, longest: float
) -> None:
    with gr.Row():
        with gr.Column():
            text = gr.Textbox(label=what, placeholder=example, lines=2, max_lines=6)
            seconds = gr.Slider(0.1, longest, min(10.0, longest), step=0.1, label="Longest (seconds)")
            with gr.Accordion("Sampling", open=False):
                temperature, top_p, seed = _sampling(SPEECH_SAMPLING.temperature, SPEECH_SAMPLING.top_p)
                guidance = gr.Slider(
                    1.0, 5.0, 1.0, step=0.1, label="Guidance", info="Above 1: closer to the text, twice the time"
                )
            button = gr.Button(does, variant="primary")
        with gr.Column():
            player, note = _player("Generated"), gr.Markdown()
    picture = _picture("Mel spectrogram")
    _when([button.click, text.submit], partial(make, task, loaded), task.__name__,
          [text, seconds, temperature, top_p, guidance, seed], [player, picture, note])  # fmt: skip


def _round_trip(loaded: LoadedCheckpoint) -> None:
    with gr.Row():
        with gr.Column():
            clip = _clip_input()
            button = gr.Button("Encode and decode", variant="primary")
        with gr.Column():
            original, made, note = _player("Original"), _player("Reconstruction"), gr.Markdown()
    picture = _picture("Mel spectrograms")
    _when([button.click], partial(round_trip, loaded.processor), "round_trip", [clip], [original, made, picture, note])


def _when(events: list[Any], action: Callable[..., Any], name: str, inputs: list[Any], outputs: list[Any]) -> None:
    gr.on(events, readable(action), inputs, outputs, api_name=name, **ONE_AT_A_TIME)


def _sampling(temperature: float, top_p: float) -> tuple[Any, Any, Any]:
    return (
        gr.Slider(0.0, 2.0, temperature, step=0.05, label="Temperature", info="0 takes the likeliest token each time"),
        gr.Slider(0.05, 1.0, top_p, step=0.01, label="Top-p"),
        gr.Number(0, label="Seed", precision=0, minimum=0),
    )


def _clip_input() -> Any:
    return gr.Audio(label="Clip", sources=["upload", "microphone"], type="filepath", buttons=["download"])


def _player(label: str) -> Any:
    return gr.Audio(label=label, type="numpy", interactive=False, buttons=["download"])


def _picture(label: str) -> Any:
    # its label would lie over the picture, which has titles of its own
    return gr.Image(label=label, show_label=False, interactive=False, format="png", buttons=["download", "fullscreen"])
