"""Reading and writing audio: every bad file is named with its reason, every good one comes back as it is."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from codec.audio import AudioError, prepare, read_audio, read_bytes, read_header, resample, write_audio

RATES = st.sampled_from([8_000, 16_000, 22_050, 24_000, 44_100, 48_000, 192_000])


def noise(samples: int, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal((samples, channels))).astype(np.float32)


def encoded(rate: int, samples: NDArray[np.float32], **kwargs: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **kwargs)
    return buffer.getvalue()


FORMATS = {
    "wav": {"format": "WAV"},
    "float.wav": {"format": "WAV", "subtype": "FLOAT"},
    "24.wav": {"format": "WAV", "subtype": "PCM_24"},
    "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
    "aiff": {"format": "AIFF"},
    "w64": {"format": "W64"},
    "rf64": {"format": "RF64"},
    "au": {"format": "AU"},
    "caf": {"format": "CAF"},
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_reads_whole_and_cut_files_raise(suffix: str, tmp_path: Path) -> None:
    data = encoded(48_000, noise(48_000), **FORMATS[suffix])
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(data)
    waveform = read_audio(path, 24_000)
    assert waveform.dtype == np.float32 and waveform.shape == (24_000,)
    assert np.array_equal(read_audio(data, 24_000), waveform)
    assert read_header(path).seconds == pytest.approx(1.0)
    for share in (0.9, 0.5, 0.02):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(AudioError, match=re.escape(str(path))):
            read_audio(path, 24_000)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_cut_of_a_single_byte_raises(suffix: str) -> None:
    data = encoded(16_000, noise(1_600), **FORMATS[suffix])
    assert len(read_audio(data, 16_000)) == 1_600
    with pytest.raises(AudioError, match=r"cut short|damaged"):
        read_audio(data[:-1], 16_000)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.wav", b"", "empty file"),
        ("text.wav", b"hello world\n" * 50, "not an audio file.*hello"),
        ("text.mp3", b"hello world\n" * 50, "not an audio file"),
        ("zeros.wav", bytes(4_000), "not an audio file"),
        ("pointer.wav", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("none.wav", encoded(16_000, noise(0), format="WAV"), "no samples"),
        ("raw.raw", bytes(range(200)), "not an audio file"),
        ("nan.wav", encoded(16_000, np.array([[0], [np.nan], [np.inf]], "f"), format="WAV", subtype="FLOAT"), "2 of 3"),
        ("slow.wav", encoded(10, noise(20), format="WAV"), "sampling rate 10"),
    ],
    ids=[
        "empty",
        "text",
        "text.mp3",
        "zeros",
        "pointer",
        "none",
        "raw",
        "nan",
        "slow",
    ],  # not the bytes: float WAV holds the time
)
def test_bad_files_are_named_with_the_reason(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError, match=message) as caught:
        read_audio(path, 24_000)
    assert str(path) in str(caught.value)


def test_missing_files_folders_and_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AudioError, match="no such file"):
        read_audio(tmp_path / "no.wav", 24_000)
    with pytest.raises(AudioError, match="a folder"):
        read_audio(tmp_path, 24_000)
    for reader in (read_header, read_bytes):
        with pytest.raises(AudioError, match="no such file"):
            reader(tmp_path / "no.wav")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(AudioError, match="Permission denied"):
        read_audio(tmp_path / "locked.wav", 24_000)


def test_a_wav_written_to_a_pipe_states_no_length_and_is_valid() -> None:
    data = bytearray(encoded(16_000, noise(1_600), format="WAV"))
    at = data.find(b"data") + 4
    data[at : at + 4] = b"\xff" * 4
    assert len(read_audio(bytes(data), 16_000)) == 1_600


def test_a_flac_of_unstated_length_is_read_whole_and_a_lie_about_the_length_raises(tmp_path: Path) -> None:
    samples = noise(300_000)  # more than one block
    data = bytearray(encoded(48_000, samples, format="FLAC"))
    whole = read_audio(bytes(data), 48_000)
    data[21], data[22:26] = data[21] & 0xF0, bytes(4)  # STREAMINFO: total samples, 0 = unknown
    assert np.array_equal(read_audio(bytes(data), 48_000), whole) and len(whole) == 300_000
    (tmp_path / "unstated.flac").write_bytes(data)
    assert np.isnan(read_header(tmp_path / "unstated.flac").seconds)
    data[21] |= 0x0F  # 60 thousand million samples: must not be allocated
    with pytest.raises(AudioError, match="300000 are there"):
        read_audio(bytes(data), 48_000)


def test_a_variable_rate_mp3_without_length_header_is_not_cut_in_silence() -> None:
    loud_end = noise(480_000) * np.linspace(0.01, 1, 480_000, dtype=np.float32)[:, None]
    data = encoded(48_000, loud_end, format="MP3")
    assert data[:64].find(b"Xing") > 0 and len(read_audio(data, 48_000)) == 480_000
    assert len(read_audio(data + b"TAG" + bytes(125), 48_000)) == 480_000
    assert len(read_audio(data + b"APETAGEX" + bytes(20_000), 48_000)) == 480_000
    with pytest.raises(AudioError, match="without a length header"):
        read_audio(data[384:], 48_000)  # libsndfile gives 141,624 of the samples and no error


@pytest.mark.parametrize(("channels", "rate"), [(1, 24_000), (2, 44_100), (8, 48_000), (8, 192_000)])
def test_channels_are_averaged(channels: int, rate: int, tmp_path: Path) -> None:
    samples = noise(rate // 10, channels)
    write = tmp_path / "clip.wav"
    soundfile.write(write, samples, rate, subtype="FLOAT")
    assert np.allclose(read_audio(write, rate), samples.mean(axis=1), atol=1e-7)
    assert len(read_audio(write, 24_000)) == 2_400


@pytest.mark.parametrize("rate", [8_000, 24_000, 192_000])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_one_sample_is_a_clip(rate: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"one.{suffix}"
    write_audio(path, np.array([0.5], np.float32), rate)
    assert len(read_audio(path, 24_000)) == max(1, 24_000 // rate)
    assert read_audio(path, rate).tolist() == [0.5]


@given(RATES, RATES, st.integers(1, 20_000))
def test_resampling_keeps_the_duration_within_one_sample(from_rate: int, to_rate: int, samples: int) -> None:
    result = resample(noise(samples)[:, 0], from_rate, to_rate)
    assert result.dtype == np.float32 and len(result) >= 1
    assert abs(len(result) - samples * to_rate / from_rate) <= 1


def test_resampling_keeps_a_tone() -> None:
    def tone(rate: int) -> NDArray[np.float32]:
        return np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)

    error = resample(tone(44_100), 44_100, 24_000) - tone(24_000)
    assert np.abs(error[500:-500]).max() < 1e-3


@given(arrays(np.int16, st.integers(1, 300)), st.sampled_from([".wav", ".flac", ".WAV"]), RATES)
def test_int16_round_trip_is_exact(
    tmp_path_factory: pytest.TempPathFactory, pcm: NDArray[np.int16], suffix: str, rate: int
) -> None:
    path = tmp_path_factory.mktemp("round") / "deep" / f"clip{suffix}"
    write_audio(path, pcm, rate)
    back = read_audio(path, rate)
    assert np.array_equal(back * 32768, pcm.astype(np.float32))
    write_audio(path, back, rate)
    assert np.array_equal(read_audio(path, rate), back)


def test_writing_saturates_and_refuses_what_is_not_a_clip(tmp_path: Path) -> None:
    write_audio(tmp_path / "loud.wav", np.array([2.0, 1.0, -1.0, -9.0]), 16_000)
    assert (read_audio(tmp_path / "loud.wav", 16_000) * 32768).tolist() == [32767, 32767, -32768, -32768]
    for bad in (np.zeros(0), np.array([np.nan]), np.zeros((2, 3)), np.array([True]), np.array(["a"]), 1.0):
        with pytest.raises(AudioError):
            write_audio(tmp_path / "bad.wav", bad, 16_000)
    with pytest.raises(AudioError, match=r"not '.mp3'"):
        write_audio(tmp_path / "clip.mp3", np.zeros(5), 16_000)
    assert not (tmp_path / "bad.wav").exists()


def test_prepare_scales_integers_and_refuses_unscaled_floats() -> None:
    assert prepare(np.array([-32768, 16384], np.int16), 16_000, 16_000).tolist() == [-1.0, 0.5]
    assert prepare(np.array([-(2**31), 2**30], np.int32), 16_000, 16_000).tolist() == [-1.0, 0.5]
    assert prepare([0.25, -1.5], 16_000, 16_000).tolist() == [0.25, -1.5]
    with pytest.raises(AudioError, match="divide 16-bit values"):
        prepare(np.array([0.0, 20_000.0]), 16_000, 16_000)
    for rate in (0, -1, 16_000.5, None, 10**9):
        with pytest.raises(AudioError, match="sampling rate"):
            prepare(np.zeros(4), rate, 16_000)  # type: ignore[arg-type]
        with pytest.raises(AudioError, match="sampling rate"):
            resample(np.zeros(4, np.float32), 16_000, rate)  # type: ignore[arg-type]
