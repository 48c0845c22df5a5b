"""Shared by all tests: no network, one thread, a toy codec that is a pure function of each frame."""

import os

os.environ.update(
    {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
)

import hashlib
import runpy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from alm.vocabulary import AudioVocabulary
from codec.torchaudio_guard import ensure_torchaudio

ensure_torchaudio()  # before anything imports Transformers
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("ci")


class ToyCodec:
    """Satisfies the codec contract without a model: a frame's codes are a hash of its samples."""

    sampling_rate, frame_rate = 24_000, 50.0

    def __init__(self, num_codebooks: int = 1, codebook_size: int = 64, fingerprint: str = "toy-codec-0001") -> None:
        self.num_codebooks, self.codebook_size, self.fingerprint = num_codebooks, codebook_size, fingerprint
        self.calls: list[int] = []  # batch sizes, for tests that count encoding

    @property
    def tokens_per_second(self) -> float:
        return self.frame_rate * self.num_codebooks

    def encode(self, waveforms: Sequence[NDArray[np.float32]]) -> list[NDArray[np.int64]]:
        self.calls.append(len(waveforms))
        return [self._encode_one(waveform) for waveform in waveforms]

    def _encode_one(self, waveform: NDArray[np.float32]) -> NDArray[np.int64]:
        hop = int(self.sampling_rate / self.frame_rate)
        frames = np.pad(waveform, (0, -len(waveform) % hop)).reshape(-1, hop)
        coarse = np.round(frames * 127).astype(np.int8)
        hashes = [hashlib.sha256(frame.tobytes()).digest() for frame in coarse]
        return np.array(
            [[digest[k] % self.codebook_size for digest in hashes] for k in range(self.num_codebooks)], dtype=np.int64
        ).reshape(self.num_codebooks, -1)

    def decode(self, codes: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        hop = int(self.sampling_rate / self.frame_rate)
        return [np.repeat(c[0] / self.codebook_size, hop).astype(np.float32) for c in codes]

    def codebook_vectors(self) -> NDArray[np.float32]:
        rng = np.random.default_rng(0)
        return rng.standard_normal((self.num_codebooks * self.codebook_size, 8)).astype(np.float32)


@pytest.fixture
def toy_codec() -> ToyCodec:
    """One codebook of 64 codes at 50 frames a second."""
    return ToyCodec()


@pytest.fixture
def make_toy_codec() -> type[ToyCodec]:
    """The class, for tests that need another size or fingerprint."""
    return ToyCodec


def toy_vocabulary(
    num_codebooks: int = 1, codebook_size: int = 64, text_ids: int = 40, spare: int = 5
) -> AudioVocabulary:
    """The contract of a model with `text_ids` text tokens (the last two stop and padding) and `spare` rows without a token."""
    first = text_ids + 3
    return AudioVocabulary(
        codec_fingerprint="toy-codec-0001",
        sampling_rate=24_000,
        frame_rate=50.0,
        num_codebooks=num_codebooks,
        codebook_size=codebook_size,
        first_id=first,
        start_id=text_ids,
        end_id=text_ids + 1,
        placeholder_id=text_ids + 2,
        stop_id=text_ids - 1,
        pad_id=text_ids - 2,
        rows=first + num_codebooks * codebook_size + spare,
        tied=True,
        tokenizer_hash="0" * 16,
        chat_template_hash="0" * 16,
    )


@pytest.fixture
def make_vocabulary() -> Callable[..., AudioVocabulary]:
    """`toy_vocabulary`."""
    return toy_vocabulary


def write_clap(folder: Path, truncation: str = "rand_trunc") -> Path:
    """Write a random `ClapModel` of width 8 with its processor, whose text model knows a few words."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

    control = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    words = [*control.values(), "rain", "a", "dog", "bell", "barks", "wind", "rings", "and"]
    backend = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    names = {f"{name}_token": word for name, word in control.items()}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=30, **names)
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    sound = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 1, 1],
        "enable_fusion": truncation == "fusion",
    }
    torch.manual_seed(0)
    config = ClapConfig(text_config={**text, "vocab_size": len(words)}, audio_config=sound, projection_dim=8)
    ClapModel(config).save_pretrained(folder)
    ClapFeatureExtractor(feature_size=64, truncation=truncation, padding="repeatpad").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_classifier(folder: Path) -> Path:
    """Write a random `ASTForAudioClassification` of width 16 and 5 classes with its feature extractor."""
    import torch
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    length = {"num_mel_bins": 32, "max_length": 128}
    torch.manual_seed(0)
    config = ASTConfig(**small, **length, num_labels=5, initializer_range=0.5)
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(**length).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random CLAP."""
    return write_clap(tmp_path_factory.mktemp("clap"))


@pytest.fixture(scope="session")
def fused_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random CLAP whose extractor fuses crops."""
    return write_clap(tmp_path_factory.mktemp("fused_clap"), "fusion")


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random classifier of sounds."""
    return write_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def chat_server() -> Iterator[Any]:
    """A running server of `helpers/chat_server.py`."""
    server = runpy.run_path(str(Path(__file__).parent / "helpers" / "chat_server.py"))["ChatServer"]().start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def tiny_listeners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of random models of other people that hear (`helpers/audio_models.py`), by family."""
    makers = runpy.run_path(str(Path(__file__).parent / "helpers" / "audio_models.py"))["MAKERS"]
    folders = {name: tmp_path_factory.mktemp(name) for name in makers}
    for name, folder in folders.items():
        makers[name](folder, scale=4.0)
    return folders
