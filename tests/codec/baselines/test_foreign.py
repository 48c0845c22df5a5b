"""SpeechTokenizer, WavTokenizer and XY-Tokenizer: models of a package or repository of their own.

Each test runs on a stand-in with the documented interface, written into a folder of its own like the real thing, and on the real
classes (tiny where they allow it) wherever these are: SpeechTokenizer if its package is installed, the others if the environment
variables WAVTOKENIZER_CHECKOUT and XY_TOKENIZER_CHECKOUT name checkouts.
"""

import importlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from codec.base import Codec
from codec.baselines.base import BaselineError
from codec.baselines.checkout import foreign_packages
from codec.entangle import CheckpointError
from codec.zoo import load_codec

Clips = list[NDArray[np.float32]]
STAND_INS = Path(__file__).with_name("stand_ins")

SPEECHTOKENIZER = {
    "n_filters": 4,
    "dimension": 16,
    "semantic_dimension": 8,
    "strides": [8, 5, 4, 2],
    "lstm_layers": 1,
    "bidirectional": True,
    "dilation_base": 2,
    "residual_kernel_size": 3,
    "n_residual_layers": 1,
    "activation": "ELU",
    "sample_rate": 16_000,
    "n_q": 3,
    "codebook_size": 64,
}
# the encoder's width is written into the original's code, so this is the one model that cannot be tiny
WAVTOKENIZER = {
    "model": {
        "init_args": {
            "feature_extractor": {
                "class_path": "decoder.feature_extractors.EncodecFeatures",
                "init_args": {"num_quantizers": 1, "dowmsamples": [8, 5, 4, 2], "vq_bins": 64, "vq_kmeans": 2},
            },
            "backbone": {
                "class_path": "decoder.models.VocosBackbone",
                "init_args": {
                    "input_channels": 512,
                    "dim": 64,
                    "intermediate_dim": 64,
                    "num_layers": 1,
                    "adanorm_num_embeddings": 4,
                },
            },
            "head": {
                "class_path": "decoder.heads.ISTFTHead",
                "init_args": {"dim": 64, "n_fft": 1280, "hop_length": 320, "padding": "same"},
            },
        }
    }
}
AUDIO = {
    "num_mel_bins": 80,
    "sampling_rate": 16_000,
    "hop_length": 160,
    "stride_size": 2,
    "kernel_size": 3,
    "d_model": 32,
}
LAYERS = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
XY_TOKENIZER = {
    "generator_params": {
        "sample_rate": 16_000,
        "feature_extractor_kwargs": {"chunk_length": 30, "feature_size": 80, "hop_length": 160, "n_fft": 400, "sampling_rate": 16_000},
        "semantic_encoder_kwargs": AUDIO | LAYERS,
        "acoustic_encoder_kwargs": AUDIO | LAYERS,
        "semantic_encoder_adapter_kwargs": {"input_dim": 32, "output_dim": 32, "d_model": 32, "max_source_positions": 1500, **LAYERS},
        "pre_rvq_adapter_kwargs": {"input_dim": 64, "output_dim": 32, "d_model": 32, "max_source_positions": 1500, **LAYERS},
        "downsample_kwargs": {"d_model": 32, "avg_pooler": 4},
        "quantizer_kwargs": {"input_dim": 128, "rvq_dim": 16, "output_dim": 128, "num_quantizers": 4, "codebook_size": 64,
                             "codebook_dim": 16},
        "post_rvq_adapter_kwargs": {"input_dim": 128, "output_dim": 128, "d_model": 32, "max_source_positions": 375, **LAYERS},
        "upsample_kwargs": {"d_model": 32, "stride": 4},
        "acoustic_decoder_kwargs": AUDIO | {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32},
        "vocos_kwargs": {"input_channels": 80, "dim": 32, "intermediate_dim": 32, "num_layers": 1, "n_fft": 640, "hop_size": 160},
    }
}  # fmt: skip


class Foreign(NamedTuple):
    """A checkpoint with what `load_codec` needs to read it, and the numbers that its codec must report."""

    name: str
    options: dict[str, Any]
    model: Any
    rate: int
    hop: int
    codebooks: int


def write(folder: Path, **files: str) -> None:
    """A package of stand-ins: `a__b="c"` copies stand_ins/c.py to a/b.py and makes every folder on the way a package."""
    for target, source in files.items():
        file = folder.joinpath(*target.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(STAND_INS / f"{source}.py", file)


def prepared(model: Any, encoder: Any) -> Any:
    """Codebooks marked as trained, the first drawn from where the encoder's outputs are, so that codes differ."""
    torch.manual_seed(0)
    rows = [value for name, value in model.named_buffers() if name.endswith((".embed", ".codebook"))]
    with torch.no_grad():
        latents = None if encoder is None else encoder(0.2 * torch.randn(1, 1, 16_000))[0]  # (D, T)
    for index, codebook in enumerate(rows):
        codebook.normal_(std=0.1)
        if latents is not None:
            codebook.mul_(latents.std(1) * 10 * 0.5**index).add_(latents.mean(1) if index == 0 else 0.0)
    for name, buffer in model.named_buffers():
        if name.endswith(".inited"):
            buffer.fill_(1)
    return model.eval()


def speechtokenizer(real: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Foreign:
    if real and importlib.util.find_spec("speechtokenizer") is None:
        pytest.skip("the package speechtokenizer is not installed")
    if not real:
        write(tmp_path / "site", speechtokenizer__model="speechtokenizer_model")
        # the real one imports its trainer, and with it packages that its metadata forget
        (tmp_path / "site" / "speechtokenizer" / "__init__.py").write_text("import no_such_package_anywhere\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        importlib.invalidate_caches()
    spec = importlib.util.find_spec("speechtokenizer")
    assert spec is not None
    assert spec.origin is not None
    with foreign_packages(Path(spec.origin).parents[1], "speechtokenizer", how_to_get="", bare=True):
        torch.manual_seed(0)
        model = importlib.import_module("speechtokenizer.model").SpeechTokenizer(SPEECHTOKENIZER)
    prepared(model, model.encoder)
    config, checkpoint = tmp_path / "config.json", tmp_path / "weights.pt"
    config.write_text(json.dumps(SPEECHTOKENIZER))
    torch.save(model.state_dict(), checkpoint)
    return Foreign("speechtokenizer", {"config": config, "checkpoint": checkpoint}, model, 16_000, 320, 3)


def wavtokenizer(real: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Foreign:
    folder = checkout("WAVTOKENIZER_CHECKOUT") if real else tmp_path / "repository"
    if not real:
        write(folder, decoder__pretrained="wavtokenizer_pretrained")
        (folder / "encoder").mkdir()
        (folder / "encoder" / "__init__.py").write_text('HOP_NAME = "dowmsamples"\n')
        (folder / "decoder" / "__init__.py").write_text("from decoder.pretrained import WavTokenizer\n")
    config, checkpoint = tmp_path / "config.yaml", tmp_path / "model.ckpt"
    config.write_text(yaml.safe_dump(WAVTOKENIZER))
    with foreign_packages(folder, "encoder", "decoder", how_to_get=""):
        torch.manual_seed(0)
        model = importlib.import_module("decoder.pretrained").WavTokenizer.from_hparams0802(str(config))
    prepared(model, model.feature_extractor.encodec.encoder)
    discriminators = {"multiperioddisc.weight": torch.zeros(1)}
    torch.save({"state_dict": model.state_dict() | discriminators, "epoch": 3}, checkpoint)
    options = {"checkout": folder, "config": config, "checkpoint": checkpoint}
    return Foreign("wavtokenizer", options, model, 24_000, 320, 1)


def xy_tokenizer(real: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Foreign:
    folder = checkout("XY_TOKENIZER_CHECKOUT") if real else tmp_path / "repository"
    if not real:
        files = {"xy_tokenizer__model": "xy_tokenizer_model", "xy_tokenizer__nn__quantizer": "xy_tokenizer_quantizer"}
        write(folder, **files)
    config, checkpoint = tmp_path / "config.yaml", tmp_path / "model.ckpt"
    config.write_text(yaml.safe_dump(XY_TOKENIZER))
    with foreign_packages(folder, "xy_tokenizer", how_to_get=""):
        torch.manual_seed(0)
        settings = XY_TOKENIZER["generator_params"]
        model = importlib.import_module("xy_tokenizer.model").XY_Tokenizer(settings)
    prepared(model, None)
    torch.save({"generator": model.state_dict()}, checkpoint)
    options = {"checkout": folder, "config": config, "checkpoint": checkpoint}
    return Foreign("xy-tokenizer", options, model, 16_000, 1280, 4)


def checkout(variable: str) -> Path:
    folder = os.environ.get(variable)
    if folder is None:
        pytest.skip(f"{variable} names no checkout of the repository")
    return Path(folder)


MAKERS: list[Callable[..., Foreign]] = [speechtokenizer, wavtokenizer, xy_tokenizer]


@pytest.fixture(
    params=[(make, real) for make in MAKERS for real in (False, True)],
    ids=lambda p: f"{p[0].__name__}-{'real' if p[1] else 'stand_in'}",
)
def foreign(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Foreign:
    make, real = request.param
    found: Foreign = make(real, tmp_path, monkeypatch)
    return found


def test_contract(foreign: Foreign, clips: Clips) -> None:
    before = dict(sys.modules)
    codec = load_codec(foreign.name, **foreign.options)
    assert {name for name in ("encoder", "decoder", "speechtokenizer", "xy_tokenizer") if name in sys.modules} == {
        name for name in ("encoder", "decoder", "speechtokenizer", "xy_tokenizer") if name in before
    }
    assert isinstance(codec, Codec)
    assert (codec.sampling_rate, codec.num_codebooks, codec.codebook_size) == (foreign.rate, foreign.codebooks, 64)
    assert codec.frame_rate == foreign.rate / foreign.hop
    assert codec.tokens_per_second == codec.frame_rate * foreign.codebooks
    codes = codec.encode(clips)
    for clip, found in zip(clips, codes, strict=True):
        assert found.shape == (foreign.codebooks, -(-len(clip) // foreign.hop))
        assert found.dtype == np.int64
        assert found.min() >= 0
        assert found.max() < 64
    assert len(np.unique(np.concatenate(codes, axis=1))) > 8
    waves = codec.decode(codes)
    assert [len(wave) for wave in waves] == [found.shape[1] * foreign.hop for found in codes]
    assert all(wave.dtype == np.float32 and np.isfinite(wave).all() for wave in waves)
    for clip, found, wave in zip(clips, codes, waves, strict=True):
        assert np.array_equal(codec.encode([clip])[0], found)
        assert np.array_equal(codec.decode([found])[0], wave)
    vectors = codec.codebook_vectors()
    assert vectors is not None
    assert len(np.unique(vectors, axis=0)) == 64 * foreign.codebooks


def test_a_file_describes_it_wherever_a_name_is_taken(foreign: Foreign, tmp_path: Path) -> None:
    file = tmp_path / "codec.yaml"
    options = {key: os.path.relpath(value, tmp_path) for key, value in foreign.options.items()}
    file.write_text(yaml.safe_dump({"codec": foreign.name, "num_codebooks": 1, **options}))
    codec = load_codec(file)
    assert codec.num_codebooks == 1
    assert codec.fingerprint == load_codec(foreign.name, num_codebooks=1, **foreign.options).fingerprint
    assert load_codec(file, num_codebooks=foreign.codebooks).num_codebooks == foreign.codebooks


def test_codes_are_those_of_the_model_called_directly(foreign: Foreign, clips: Clips) -> None:
    codec = load_codec(foreign.name, **foreign.options)
    whole = [
        np.pad(clip, (0, -len(clip) % foreign.hop)) for clip in clips[2:]
    ]  # XY-Tokenizer drops what is not a whole frame
    for clip, found in zip(whole, codec.encode(whole), strict=True):
        wave = torch.from_numpy(clip)
        with torch.inference_mode():
            if foreign.name == "speechtokenizer":
                direct = foreign.model.encode(wave[None, None])[:, 0]
            elif foreign.name == "wavtokenizer":
                direct = foreign.model.encode_infer(wave[None], bandwidth_id=torch.tensor([0]))[1][:, 0]
            else:
                direct = foreign.model.encode([wave], device=torch.device("cpu"))["codes_list"][0]
        assert np.array_equal(found, direct.numpy())


def test_fewer_codebooks_are_the_first_ones(foreign: Foreign, clips: Clips) -> None:
    every = load_codec(foreign.name, **foreign.options)
    one = load_codec(foreign.name, num_codebooks=1, **foreign.options)
    codes = every.encode(clips)
    for short, found in zip(one.encode(clips), codes, strict=True):
        assert np.array_equal(short, found[:1])
    assert [len(wave) for wave in one.decode([found[:1] for found in codes])] == [len(w) for w in every.decode(codes)]
    assert (one.fingerprint == every.fingerprint) == (foreign.codebooks == 1)
    with pytest.raises(BaselineError, match=f"1 to {foreign.codebooks}"):
        load_codec(foreign.name, num_codebooks=foreign.codebooks + 1, **foreign.options)


def test_fingerprint_follows_what_decides_a_code(foreign: Foreign) -> None:
    codec: Any = load_codec(foreign.name, **foreign.options)
    before = codec.fingerprint
    again: Any = load_codec(foreign.name, **foreign.options)
    deciding = [n for n, _ in again.model.named_parameters() if not n.startswith(again.decoder_parts)]
    others = [n for n, _ in again.model.named_parameters() if n.startswith(again.decoder_parts)]
    assert deciding
    assert others
    with torch.no_grad():
        for name in others:
            again.model.get_parameter(name).add_(1.0)
        assert again.fingerprint == before
        again._fingerprint = None
        again.model.get_parameter(deciding[0]).add_(1e-3)
    assert again.fingerprint != before


def test_a_codebook_that_was_never_trained_is_refused(foreign: Foreign, tmp_path: Path) -> None:
    """Such a model makes a codebook up from the first clip that it hears (WavTokenizer: k-means over its frames)."""
    for name, buffer in foreign.model.named_buffers():
        if name.endswith(".inited"):
            buffer.zero_()
    torch.save(foreign.model.state_dict(), tmp_path / "raw.pt")
    with pytest.raises(CheckpointError, match="never trained"):
        load_codec(foreign.name, **foreign.options | {"checkpoint": tmp_path / "raw.pt"})


def test_weights_as_safetensors_and_weights_that_do_not_fit(foreign: Foreign, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "weights.safetensors"
    weights = {name: value.contiguous() for name, value in foreign.model.state_dict().items()}
    save_file(weights, file)
    codec = load_codec(foreign.name, **foreign.options | {"checkpoint": file})
    assert codec.fingerprint == load_codec(foreign.name, **foreign.options).fingerprint
    weights.popitem()
    save_file(weights, file)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_codec(foreign.name, **foreign.options | {"checkpoint": file})


def test_pickled_objects_are_not_run(foreign: Foreign, tmp_path: Path) -> None:
    torch.save({"state_dict": foreign.model.state_dict(), "callback": Foreign}, tmp_path / "objects.pt")
    with pytest.raises(CheckpointError, match="unpickling"):
        load_codec(foreign.name, **foreign.options | {"checkpoint": tmp_path / "objects.pt"})


def test_what_is_missing_says_how_to_get_it(foreign: Foreign, tmp_path: Path) -> None:
    for option in foreign.options:
        given = {key: value for key, value in foreign.options.items() if key != option}
        gone = foreign.options | {option: tmp_path / "nowhere"}
        with pytest.raises(CheckpointError, match="nowhere is not a"):
            load_codec(foreign.name, **gone)
        if foreign.name != "xy-tokenizer" or option != "config":  # its repository brings one
            with pytest.raises(CheckpointError, match=f"{option}=.* is missing"):
                load_codec(foreign.name, **given)
    if "checkout" in foreign.options:
        with pytest.raises(CheckpointError, match=r"has no folder .*git clone https://github.com/"):
            load_codec(foreign.name, **foreign.options | {"checkout": tmp_path.parent})


def test_without_anything_each_name_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n, *a: None if n == "speechtokenizer" else find_spec(n, *a))
    with pytest.raises(CheckpointError, match=r"pip install --no-deps speechtokenizer"):
        load_codec("speechtokenizer")
    with pytest.raises(CheckpointError, match=r"git clone https://github.com/gyt1145028706/XY-Tokenizer"):
        load_codec("xy-tokenizer")
    with pytest.raises(CheckpointError, match=r"git clone https://github.com/jishengpeng/WavTokenizer"):
        load_codec("wavtokenizer", config="wavtokenizer.yaml")


def test_an_import_that_fails_inside_a_checkout_says_what_and_how(tmp_path: Path) -> None:
    (tmp_path / "xy_tokenizer").mkdir()
    (tmp_path / "xy_tokenizer" / "model.py").write_text("import torchaudio_of_another_torch\n")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "xy_tokenizer_config.yaml").write_text(yaml.safe_dump(XY_TOKENIZER))
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"No module named 'torchaudio_of_another_torch'.*pip install"):
        load_codec("xy-tokenizer", checkout=tmp_path, checkpoint=tmp_path / "weights.pt")
    assert "xy_tokenizer" not in sys.modules
