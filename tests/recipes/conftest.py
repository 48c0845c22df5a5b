"""A codec, a corpus in two real formats, its tokens and a grown model: what the training recipes start from."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from accelerate import PartialState

from alm.data.tokens_build import build_token_store
from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel
from codec.audio import write_audio

ROOT = Path(__file__).parents[2]
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


class Workshop(NamedTuple):
    """Paths of everything a training recipe reads."""

    folder: Path
    codec: Path
    tokens: Path
    config: Path
    model: Path

    def data(self) -> list[str]:
        """Flags that name the data sets."""
        f = self.folder
        return [
            *["--musicqa", f"{f}/music.json", "--musicqa_audio", f"{f}/audio"],
            *["--clothoaqa", f"{f}/clotho.csv", "--clothoaqa_audio", f"{f}/audio"],
        ]


def script(name: str) -> Callable[[list[str]], None]:
    """`main` of a recipe."""
    main: Callable[[list[str]], None] = runpy.run_path(str(ROOT / "recipes" / name))["main"]
    return main


def make_codec(folder: Path, seed: int = 0) -> Path:
    """Write a random EntangleCodec of 32 codes."""
    torch.manual_seed(seed)
    small: dict[str, Any] = {
        **SMALL,
        **{f"decoder_{name}": value for name, value in SMALL.items()},
        **{f"text_{name}": value for name, value in SMALL.items()},
    }
    config = EntangleCodecConfig(**small, codebook_size=32, projection_size=8, text_vocab_size=64, conditioning="add")
    EntangleCodec(EntangleCodecModel(config)).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def fresh_state() -> Any:
    """Every recipe finds the process state as a new process would."""
    yield
    PartialState._reset_state()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("workshop")
    audio = [folder / "audio" / f"{n}.wav" for n in range(6)]
    for n, path in enumerate(audio):
        write_audio(path, np.random.default_rng(n).uniform(-0.5, 0.5, 4_000 + 2_400 * n), 24_000)
    music = [
        {
            "audio_name": path.name,
            "conversation": [{"from": "human", "value": f"Which sound is {n}?"}, {"from": "gpt", "value": f"bell {n}"}],
        }
        for n, path in enumerate(audio)
        for _ in range(2)
    ]
    (folder / "music.json").write_text(json.dumps(music))
    rows = [
        f'{path.name},"Is it {word}?",{"yes" if word == "loud" else "no"},yes'
        for path in audio
        for word in ("loud", "far")
    ]
    (folder / "clotho.csv").write_text("\n".join(["file_name,QuestionText,answer,confidence", *rows]) + "\n")
    codec = make_codec(folder / "codec")
    tokens = folder / "tokens"
    build_token_store(audio, EntangleCodec.from_pretrained(codec), tokens, progress=False)
    config = folder / "language_model.yaml"
    numbers = {**SMALL, "vocab_size": 330, "intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 16}
    config.write_text(yaml.safe_dump({**numbers, "max_position_embeddings": 512, "tie_word_embeddings": True}))
    model = folder / "lm_base"
    texts = ["--texts", f"{folder}/music.json", f"{folder}/clotho.csv"]
    script("extend_vocabulary.py")(
        ["--from_config", str(config), *texts, "--codec", str(codec), "--output", str(model)]
    )
    return Workshop(folder, codec, tokens, config, model)
