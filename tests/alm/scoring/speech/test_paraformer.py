"""FunASR's real Paraformer, tiny and random, in a folder as FunASR publishes it. Runs by `make test-zh`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("funasr")
pytest.importorskip("zhconv")

from alm.scoring.speech.equipment import equip
from alm.scoring.speech.recognition import find_recogniser, load_recogniser

TOKENS = ["<blank>", "<s>", "</s>", *"今天气很好你我他漢", "a", "b", "<unk>"]
WIDTH = 7 * 80
"""Seven frames of 80 mels are one input."""
CONFIG: dict[str, Any] = {
    "model": "Paraformer",
    "model_conf": {"ctc_weight": 0.0, "predictor_weight": 1.0, "predictor_bias": 1},
    "encoder": "SANMEncoder",
    "encoder_conf": {
        **{"output_size": 16, "attention_heads": 2, "linear_units": 16, "num_blocks": 2, "kernel_size": 3},
        **{"input_layer": "pe", "pos_enc_class": "SinusoidalPositionEncoder", "selfattention_layer_type": "sanm"},
        **{"sanm_shfit": 0, "normalize_before": True},
    },
    "decoder": "ParaformerSANMDecoder",
    "decoder_conf": {
        **{"attention_heads": 2, "linear_units": 16, "num_blocks": 1, "att_layer_num": 1, "kernel_size": 3},
        "sanm_shfit": 0,
    },
    "predictor": "CifPredictorV2",
    "predictor_conf": {"idim": 16, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
    "frontend": "WavFrontend",
    "frontend_conf": {"fs": 16_000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10}
    | {"lfr_m": 7, "lfr_n": 6},
    "tokenizer": "CharTokenizer",
    "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from funasr.models.paraformer.model import Paraformer

    torch.manual_seed(0)
    parts = {k: v for k, v in CONFIG.items() if k.split("_")[0] in ("encoder", "decoder", "predictor")}
    model = Paraformer(vocab_size=len(TOKENS), input_size=WIDTH, **parts, **CONFIG["model_conf"])
    torch.save(model.state_dict(), tmp_path / "model.pt")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "tokens.json").write_text(json.dumps(TOKENS))
    shift, scale = (" ".join([value] * WIDTH) for value in "01")
    (tmp_path / "am.mvn").write_text(
        f"<Nnet>\n<AddShift> {WIDTH} {WIDTH}\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> {WIDTH} {WIDTH}\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )
    where = {"init_param": "model.pt", "config": "config.yaml"}
    where |= {"tokenizer_conf": {"token_list": "tokens.json"}, "frontend_conf": {"cmvn_file": "am.mvn"}}
    (tmp_path / "configuration.json").write_text(json.dumps({"model": {"type": "funasr"}, "file_path_metas": where}))
    return tmp_path


def test_it_hears_a_clip_alone_and_after_others(folder: Path) -> None:
    found = find_recogniser(str(folder))
    assert found.label.startswith("funasr ") and "model.pt, sha256 " in found.label
    hear = load_recogniser(found, language="zh")
    wave = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * 0.1
    first = hear(wave)
    hear(wave[:20_000])
    assert first == hear(wave) and set(first.replace(" ", "")) <= {*"".join(TOKENS)} and first


def test_chinese_is_equipped(folder: Path, tmp_path: Path) -> None:
    equipment = equip("zh", str(folder), True, ["utmos"])
    listener = equipment.load("cpu", tmp_path)
    assert equipment.labels["asr"].startswith("funasr ") and listener.simplify("漢") == "汉"
    assert listener.counters["seed"]("今天", listener.simplify("今 天")).errors == 0
