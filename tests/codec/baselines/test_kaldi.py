"""The filter bank of X-Codec2's semantic half against two independent ones."""

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from codec.baselines.kaldi import kaldi_fbank
from codec.baselines.xcodec2 import Xcodec2FrontEnd

RATE = 16_000


def test_as_numpy_of_transformers_computes_it() -> None:
    """`SeamlessM4TFeatureExtractor` has the same bank in numpy and float64; the energies of a mel band are compared, in nats."""
    waveform = 3_000 * np.random.default_rng(0).standard_normal(RATE)
    filters = mel_filter_bank(
        257, 80, 20, RATE // 2, RATE, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    expected = spectrogram(
        waveform,
        window_function(400, "povey", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    ).T
    found = kaldi_fbank(torch.from_numpy(waveform).float()).numpy()
    assert found.shape == expected.shape == (98, 80)
    assert np.abs(found - expected).max() < 1e-3


def test_as_torchaudio_computes_it() -> None:
    try:
        from torchaudio.compliance import kaldi
    except (ImportError, OSError):
        pytest.skip("torchaudio is no dependency; with one that fits torch, the bank is compared with its")
    waveform = 3_000 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    expected = kaldi.fbank(
        waveform[None],
        num_mel_bins=80,
        sample_frequency=RATE,
        window_type="povey",
        dither=0.0,
        low_freq=20,
        high_freq=8_000,
    )
    assert torch.equal(kaldi_fbank(waveform), expected)


def test_front_end_as_the_feature_extractor_of_transformers() -> None:
    try:
        import torchaudio  # noqa: F401
        from transformers import Xcodec2FeatureExtractor

        extractor = Xcodec2FeatureExtractor()
    except (ImportError, OSError):
        pytest.skip(
            "torchaudio is no dependency; with one that fits torch, the front end is compared with Transformers'"
        )
    for length in (1, 319, 320, 16_001):
        waveform = (0.2 * np.random.default_rng(0).standard_normal(length)).astype(np.float32)
        expected = extractor(waveform, sampling_rate=RATE, return_tensors="pt")
        for name, value in Xcodec2FrontEnd(RATE, 320)(waveform).items():
            assert torch.equal(value, expected[name]), name
