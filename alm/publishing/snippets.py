"""The card's examples of use. Tests take them out of a generated card and run them against the published folder."""

from typing import NamedTuple

from alm.vocabulary import AUDIO_END, AUDIO_START, AudioVocabulary

QUESTION = "What is heard?"
CODES = ((17, 4, 9), (5, 30, 2), (11, 8, 21))
"""Codes of three frames, each number taken modulo the codebook's size."""


class Snippet(NamedTuple):
    """A heading, what the example needs, and its Python."""

    title: str
    needs: str
    code: str

    def __str__(self) -> str:
        return f"### {self.title}\n\n{self.needs}\n\n```python\n{self.code}```"


def model_snippets(model: str, vocabulary: AudioVocabulary, speaks: bool) -> list[Snippet]:
    """Examples for a checkpoint that is loaded as `model` (a Hub id, or a folder); `speaks`: its codec makes waveforms of codes."""
    return [_stock(model, vocabulary), _ask(model), *([_speak(model)] if speaks else [])]


def adapter_snippets(adapter: str) -> list[Snippet]:
    """Examples for a LoRA adapter: its base is loaded and the adapter merged into it."""
    return [_ask(adapter)]


def codec_snippets(codec: str, speaks: bool) -> list[Snippet]:
    """Examples for a codec; `speaks`: it makes waveforms of codes, too."""
    write = ", write_audio" if speaks else ""
    code = f"""from codec.audio import read_audio{write}
from codec.zoo import load_codec

codec = load_codec("{codec}")
codes = codec.encode([read_audio("clip.wav", codec.sampling_rate)])
print(codes[0].shape)
"""
    back = 'write_audio("decoded.wav", codec.decode(codes)[0], codec.sampling_rate)\n'
    return [Snippet("A file to codes and back" if speaks else "A file to codes", TOOLKIT, code + back * speaks)]


TOOLKIT = (
    "With `entangle-alm`, installed from its checkout (`pip install -e .`; PyPI's `alm` is another project). "
    "`clip.wav` is any sound file."
)


def _stock(model: str, vocabulary: AudioVocabulary) -> Snippet:
    books = range(vocabulary.num_codebooks)
    frames = [tuple(row[k % 3] % vocabulary.codebook_size for k in books) for row in CODES]
    code = f"""from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{model}")
model = AutoModelForCausalLM.from_pretrained("{model}", dtype="auto")

frames = {frames}  # the codec's codes, frame by frame
audio = "".join(f"<|audio_{{k}}_{{code}}|>" for frame in frames for k, code in enumerate(frame))
for question in ("Which sounds does a kitchen have?", "{AUDIO_START}" + audio + "{AUDIO_END}{QUESTION}"):
    prompt = tokenizer.apply_chat_template(
        [{{"role": "user", "content": question}}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    ids = model.generate(**prompt, max_new_tokens=32, do_sample=False)
    print(tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
"""
    return Snippet("Stock Transformers, no other code", "Sound goes in as the codec's tokens.", code)


def _ask(model: str) -> Snippet:
    code = f"""from alm.checkpoint import load_checkpoint
from alm.generation import answer

model, processor = load_checkpoint("{model}")
print(answer(model, processor, "{QUESTION}", audio="clip.wav", max_new_tokens=32))
"""
    return Snippet("A question about a sound file", TOOLKIT, code)


def _speak(model: str) -> Snippet:
    code = f"""from alm.checkpoint import load_checkpoint
from alm.generation import make_sound, speak

model, processor = load_checkpoint("{model}")
speak(model, processor, "Good morning.", max_seconds=3.0, seed=0).save("speech.wav")
make_sound(model, processor, "rain on a roof", max_seconds=3.0, seed=0).save("rain.wav")
"""
    needs = f"{TOOLKIT} What comes out always decodes and ends; it is speech where speech was trained (see Training)."
    return Snippet("Speech and sounds", needs, code)
