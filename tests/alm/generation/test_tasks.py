"""Answers, speech and sounds: what comes back, what depends on what, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alm.checkpoint import LoadedCheckpoint
from alm.generation import GREEDY, Sampling, answer, make_sound, speak, stream_speech
from alm.generation.streaming import StreamingDecoder
from alm.generation.tasks import answers, span_grammar
from alm.processing import LengthError
from alm.prompts import sound_messages, speech_messages
from codec.audio import read_audio, write_audio

SHORT = {"min_seconds": 0.1, "max_seconds": 0.4}


@pytest.fixture(params=[1, 4], ids=["1 codebook", "4 codebooks"])
def loaded(request: Any, make_language_model: Any, make_toy_codec: Any) -> LoadedCheckpoint:
    return make_language_model(codec=make_toy_codec(request.param, 64 // request.param))


def test_speech_is_what_the_codes_decode_to(loaded: LoadedCheckpoint, tmp_path: Path) -> None:
    sound = speak(*loaded, "a dog barks", **SHORT)
    codec = loaded.processor.codec
    assert sound.codes.shape[0] == codec.num_codebooks and 0.1 <= sound.seconds <= 0.4
    np.testing.assert_array_equal(sound.waveform, codec.decode([sound.codes])[0])
    assert sound.forced_end == (sound.codes.shape[1] == 20)
    sound.save(tmp_path / "a.wav")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", 24_000), sound.waveform, atol=1e-4)


def test_a_request_depends_on_itself_and_its_seed_only(loaded: LoadedCheckpoint) -> None:
    texts = ["a dog", "a bell rings, then a dog barks", "café", "a dog"]
    together = speak(*loaded, texts, seed=5, batch_size=4, **SHORT)
    for size in (1, 3):
        assert all(
            np.array_equal(one.codes, other.codes)
            for one, other in zip(together, speak(*loaded, texts, seed=5, batch_size=size, **SHORT), strict=True)
        )
    assert not np.array_equal(together[0].codes, together[3].codes)  # another seed
    assert np.array_equal(speak(*loaded, "a dog", seed=8, **SHORT).codes, together[3].codes)
    greedy = [speak(*loaded, "a dog", sampling=GREEDY, seed=seed, **SHORT).codes for seed in (0, 1)]
    assert np.array_equal(*greedy)
    full = make_sound(*loaded, texts, sliced=False, guidance_scale=2.0, sampling=Sampling(), **SHORT)
    sliced = make_sound(*loaded, texts, guidance_scale=2.0, sampling=Sampling(), **SHORT)
    assert all(np.array_equal(one.codes, other.codes) for one, other in zip(full, sliced, strict=True))


def test_answers_are_about_the_clip(loaded: LoadedCheckpoint, tmp_path: Path) -> None:
    """The audio is in the prompt, from each source the same; the text never holds an audio token."""
    model, processor = loaded
    write_audio(tmp_path / "a.wav", np.sin(np.arange(4800) / 7), 24_000)
    wave = read_audio(tmp_path / "a.wav", 24_000)
    clips: list[Any] = [
        tmp_path / "a.wav",
        {"audio": wave, "sampling_rate": 24_000},
        {"bytes": (tmp_path / "a.wav").read_bytes()},
        {"codes": processor.encode_audio([wave])[0]},
        None,
    ]
    texts = answer(model, processor, ["what is heard?"] * 5, clips, max_new_tokens=12)
    assert len(set(texts[:4])) == 1 and "<|" not in texts[0]
    assert answer(model, processor, "what is heard?", clips[0], max_new_tokens=12) == texts[0]
    with pytest.raises(ValueError, match="2 questions, but 1 clips"):
        answer(model, processor, ["a", "b"], [None])


def test_a_voice_goes_before(loaded: LoadedCheckpoint) -> None:
    model, processor = loaded
    clip = {"codes": np.zeros((processor.vocabulary.num_codebooks, 3), dtype=np.int64)}
    plain, cloned = (
        speak(model, processor, "a dog", **SHORT),
        speak(model, processor, "a dog", (clip, "hello"), **SHORT),
    )
    assert plain.codes.shape != cloned.codes.shape or not np.array_equal(plain.codes, cloned.codes)
    messages = speech_messages("a dog {} ", ({"type": "audio", **clip}, "hello"))
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[-1]["content"][0]["text"].endswith("a dog {} ")
    assert sound_messages("x") != speech_messages("x")


def test_room_is_checked_before_anything_is_computed(make_language_model: Any) -> None:
    model, processor = make_language_model(max_length=64)
    with pytest.raises(LengthError, match=r"max_seconds"):
        speak(model, processor, "a dog", max_seconds=2.0)
    with pytest.raises(ValueError, match="not under the least"):
        speak(model, processor, "a dog", min_seconds=0.5, max_seconds=0.1)
    prompt = [1] * 60
    assert len(answers(model, processor, [prompt, [1]], max_new_tokens=4)) == 2
    with pytest.raises(LengthError, match=r"60 tokens and 5 .* the 64 .*: at most 4 fit behind it.*max_new_tokens"):
        answers(model, processor, [[1], prompt], max_new_tokens=5)


def test_a_codec_that_makes_no_waveforms_is_refused_before_anything_is_generated(
    loaded: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mute(codes: Any) -> Any:
        raise ValueError("this codec has no vocoder")

    monkeypatch.setattr(loaded.processor.codec, "decode", mute)
    monkeypatch.setattr(type(loaded.model.get_decoder()), "forward", lambda *_, **__: pytest.fail("generated"))
    for make in (speak, make_sound, lambda *args: next(stream_speech(*args))):
        with pytest.raises(ValueError, match="no vocoder"):
            make(*loaded, "a dog barks")


@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_streaming_is_the_offline_decode(loaded: LoadedCheckpoint, chunk: int) -> None:
    chunks = list(stream_speech(*loaded, "a dog barks", seed=3, chunk=chunk, left=2, right=1, **SHORT))
    whole = speak(*loaded, "a dog barks", seed=3, **SHORT).waveform
    np.testing.assert_allclose(np.concatenate(chunks), whole, atol=1e-6)  # the toy codec decodes each frame by itself
    assert all(len(one) == chunk * 480 for one in chunks[:-1])


def test_speech_is_heard_before_it_is_complete(loaded: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    forward = type(loaded.model.get_decoder()).forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(type(loaded.model.get_decoder()), "forward", counted)
    next(stream_speech(*loaded, "a dog barks", chunk=2, left=2, right=1, min_seconds=0.3, max_seconds=0.4))
    assert steps == 1 + 3 * loaded.processor.vocabulary.num_codebooks  # the start token, then chunk + right frames


class Smeared:
    """A codec of our own contract whose decoding looks `reach` frames around and draws noise by position."""

    sampling_rate, frame_rate, num_codebooks, codebook_size, tokens_per_second = 800, 50.0, 1, 64, 50.0
    fingerprint = "smeared"

    def __init__(self, reach: int) -> None:
        self.reach, self.longest = reach, 0

    def encode(self, waveforms: Any) -> Any:
        raise NotImplementedError

    def codebook_vectors(self) -> None:
        return None

    def decode_window(self, codes: Any, first_frame: int) -> Any:
        self.longest = max(self.longest, codes.shape[1])
        frames = codes[0] + np.random.default_rng(0).standard_normal(first_frame + codes.shape[1])[first_frame:]
        kernel = np.ones(2 * self.reach + 1)
        return np.repeat(np.convolve(np.pad(frames, self.reach), kernel, "valid"), 16).astype(np.float32)

    def decode(self, codes: Any) -> Any:
        return [self.decode_window(one, 0) for one in codes]


@pytest.mark.parametrize("length", [1, 7, 40])
@pytest.mark.parametrize("sizes", [[1], [5, 2], [40]])
def test_enough_context_is_exact_and_the_work_is_bounded(length: int, sizes: list[int]) -> None:
    codec = Smeared(3)
    codes = np.random.default_rng(1).integers(0, 64, (1, length))
    whole = codec.decode([codes])[0]
    codec.longest = 0
    stream = StreamingDecoder(codec, chunk=4, left=3, right=4)  # one frame more for the cross-fade
    chunks, at = [], 0
    while at < length:
        size = sizes[at % len(sizes)]
        chunks += list(stream.push(codes[:, at : at + size]))
        at += size
    chunks += list(stream.flush())
    np.testing.assert_allclose(np.concatenate(chunks), whole, rtol=1e-5)
    assert codec.longest <= 4 + 3 + 4
    short = StreamingDecoder(codec, chunk=4, left=1, right=1)
    less = np.concatenate([*short.push(codes), *short.flush()])
    assert less.shape == whole.shape and (length < 5 or not np.allclose(less, whole))


def test_windows_of_the_codec_have_the_noise_of_the_whole() -> None:
    from codec.configuration import EntangleCodecConfig
    from codec.entangle import EntangleCodec
    from codec.modeling import EntangleCodecModel

    torch.manual_seed(0)
    config = EntangleCodecConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, codebook_size=64,
        decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=32,
        vocoder={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
    )  # fmt: skip
    model = EntangleCodecModel(config)
    for parameter in model.parameters():  # at the start its blocks are the identity, and its sound silence
        torch.nn.init.normal_(parameter, std=0.2)
    codec = EntangleCodec(model)
    codes = np.random.default_rng(0).integers(0, 64, (1, 30))
    np.testing.assert_allclose(codec.decode_window(codes, 0), codec.decode([codes])[0], atol=1e-6)
    assert not np.allclose(codec.decode_window(codes, 7), codec.decode([codes])[0])
    stream = StreamingDecoder(codec, chunk=8, left=30, right=30)
    np.testing.assert_allclose(
        np.concatenate([*stream.push(codes), *stream.flush()]), codec.decode([codes])[0], atol=1e-5
    )


def test_a_codec_of_uneven_frames_is_refused() -> None:
    codec = Smeared(1)
    codec.decode_window = lambda codes, first: np.zeros(5, np.float32)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="cannot be streamed"):
        list(StreamingDecoder(codec, chunk=1, right=0).push(np.zeros((1, 2), dtype=np.int64)))
    with pytest.raises(ValueError, match="at least one frame"):
        StreamingDecoder(codec, chunk=0)


@pytest.mark.parametrize("seconds", [0.14, 0.28, 0.56, 0.58, 1.1])
def test_exact_durations_can_be_asked_for(language_model: LoadedCheckpoint, seconds: float) -> None:
    """Whole numbers of frames, though 50 × none of them is whole in binary."""
    grammar = span_grammar(language_model.processor.vocabulary, seconds, seconds)
    assert grammar.min_frames == grammar.max_frames == round(seconds * 50)
