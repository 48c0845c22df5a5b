"""`recipes/publish.py`: a trained, scored model becomes a folder; its card's examples are run; the Hub is a recorder of calls."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from safetensors.torch import load_file, save_file

from alm.checkpoint import load_checkpoint
from alm.data.example import DataError
from alm.vocabulary import ContractError
from codec.audio import read_header

ROOT = Path(__file__).parents[2]
STOCK = "import sys\nsys.modules['alm'] = sys.modules['codec'] = None\n"
"""In front of an example: importing this project fails."""


class Run(NamedTuple):
    """A trained model and what was measured on it."""

    model: Path
    codec: Path
    mmar: Path
    sound: Path


def script(name: str) -> Callable[[list[str]], None]:
    return runpy.run_path(str(ROOT / name))["main"]


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    return script("recipes/publish.py")


@pytest.fixture(scope="module")
def run(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two steps of training with a checkpoint, ten answers, six reconstructions."""
    folder = tmp_path_factory.mktemp("run")
    fast = ["--max_steps", "2", "--save_steps", "2", "--max_length", "256", "--disable_tqdm", "true"]
    fast += ["--per_device_train_batch_size", "1", "--gradient_checkpointing", "false"]
    paths = ["--model", str(workshop.model), "--tokens", str(workshop.tokens), "--output_dir", str(folder / "model")]
    script("recipes/sft_understanding.py")([*paths, *workshop.data(), *fast])
    (folder / "model" / "training_args.bin").write_bytes(b"a pickle")
    rows = [
        {
            "id": f"q{n}",
            "audio_path": f"audio/{n % 6}.wav",
            "question": "Which sound is it?",
            "choices": ["bell 0", "bell 1", "bell 2"],
            "answer": f"bell {n % 3}",
            "modality": "sound",
            "category": "Perception Layer",
            "sub-category": "Counting",
            "language": None,
        }
        for n in range(10)
    ]
    data = folder / "MMAR-meta.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = Run(folder / "model", workshop.codec, folder / "mmar.json", folder / "reconstruction.json")
    scored = ["--model", str(made.model), "--data", str(data), "--audio", str(workshop.folder), "--max_new_tokens", "4"]
    script("eval/mmar.py")([*scored, "--output", str(made.mmar)])
    heard = ["--codec", str(made.codec), "--audio", str(workshop.folder / "audio"), "--metrics", "log_mel_l1"]
    heard += ["--griffin_lim"]  # the workshop's codec has no vocoder
    script("eval/reconstruction.py")([*heard, "--output", str(made.sound)])
    return made


def flags(run: Run, output: Path, *more: str) -> list[str]:
    return ["--model", str(run.model), "--output", str(output), *more]


@pytest.fixture(scope="module")
def published(main: Callable, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("published") / "hub"
    known = [
        "--repo",
        "someone/heard",
        "--license",
        "apache-2.0",
        "--base_model",
        "Qwen/Qwen3-0.6B",
        "--language",
        "en",
    ]
    main(flags(run, output, *known, "--results", str(run.mmar), str(run.sound), "--datasets", "mu-llama/MusicQA"))
    return output


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def examples(folder: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


def execute(code: str, repo: str, folder: Path, where: Path, workshop: Any) -> str:
    """Run an example in a new process beside a `clip.wav`, the Hub id replaced by the folder that would be uploaded."""
    shutil.copy(workshop.folder / "audio" / "3.wav", where / "clip.wav")
    assert f'"{repo}"' in code
    program = [sys.executable, "-c", code.replace(f'"{repo}"', repr(str(folder)))]
    done = subprocess.run(program, cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_folder_holds_what_loads_and_nothing_else(run: Run, published: Path) -> None:
    own = {"config.json", "generation_config.json", "processor_config.json", "model.safetensors"}
    text = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    codec = {"codec/config.json", "codec/preprocessor_config.json", "codec/model.safetensors"}
    assert names(published) == {*own, *text, *codec, "README.md", "manifest.json"}
    assert {"checkpoint-2", "training_args.bin", "training_log.jsonl"} <= {path.name for path in run.model.iterdir()}
    before, after = (load_checkpoint(folder) for folder in (run.model, published))
    assert after.processor.vocabulary == before.processor.vocabulary
    assert after.processor.codec.fingerprint == before.processor.codec.fingerprint
    assert all(map(torch.equal, before.model.parameters(), after.model.parameters()))


def test_no_text_tells_of_the_machine(run: Run, published: Path) -> None:
    assert str(run.model.parent) in (run.model / "manifest.json").read_text()  # so that there is something to hide
    for name in names(published):
        if not name.endswith(".safetensors"):
            content = (published / name).read_text(encoding="utf-8")
            assert not any(part in content for part in (str(run.model.parent), str(Path.home()) + "/", "pytest-of")), (
                name
            )
    manifest = json.loads((published / "manifest.json").read_text())
    assert "command" not in manifest and manifest["arguments"]["musicqa"] == "music.json"
    assert set(manifest["files"]) == {"music.json", "clotho.csv"} and manifest["read"][0]["missing_audio"] == 0


def test_metadata_are_the_result_files_own(run: Run, published: Path) -> None:
    data = ModelCard.load(published / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "audio-text-to-text", "apache-2.0")
    assert (data.base_model, data.datasets, data.language) == ("Qwen/Qwen3-0.6B", ["mu-llama/MusicQA"], ["en"])
    results = [json.loads(path.read_text()) for path in (run.mmar, run.sound)]
    wanted = {name: score["value"] for result in results for name, score in result["scores"].items()}
    assert {result.metric_name: result.metric_value for result in data.eval_results} == pytest.approx(wanted)
    (mmar,) = {r.dataset_revision for r in data.eval_results if r.dataset_type == "mmar"}
    assert mmar == results[0]["manifest"]["data_sha256"]


def test_every_accuracy_has_its_controls_beside_it(run: Run, published: Path) -> None:
    card = (published / "README.md").read_text(encoding="utf-8")
    result = json.loads(run.mmar.read_text())
    for name, score in result["scores"].items():
        (row,) = re.findall(rf"^\| {name} .*$", card, flags=re.MULTILINE)
        cells = [cell.strip() for cell in row.split("|")][2:-1]
        blind, chance = result["controls"][f"no_audio_{name}"]["value"], result["controls"]["chance"]["value"]
        assert cells[0] == f"**{100 * score['value']:.1f}**" and cells[2:] == [
            f"{100 * blind:.1f}",
            f"{100 * chance:.1f}",
        ]
        assert cells[1] == f"{100 * score['low']:.1f} to {100 * score['high']:.1f}"


def test_the_card_states_contract_training_and_limits(published: Path) -> None:
    card = (published / "README.md").read_text(encoding="utf-8")
    vocabulary = load_checkpoint(published).processor.vocabulary
    assert f"`{vocabulary.hash}`" in card and f"`{vocabulary.codec_fingerprint}`" in card
    assert f"{vocabulary.first_id:,} to {vocabulary.end - 1:,}" in card and f"{vocabulary.rows:,}, of which" in card
    assert "steps: 2; 1 rows a step and process" in card and "| musicqa | 12 | 12 | none | MIT" in card
    assert "do not use this to identify a person" in card and "Not evaluated: speech and sound output" in card
    assert "Apache-2.0 by its authors" in card


def test_examples_run_the_first_without_this_project(published: Path, workshop: Any, tmp_path: Path) -> None:
    stock, ask = examples(published)
    assert "alm" not in stock.replace("AutoModelForCausalLM", "")
    out = execute(STOCK + stock, "someone/heard", published, tmp_path, workshop)
    assert out.count("\n") >= 2
    execute(ask, "someone/heard", published, tmp_path, workshop)
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        execute(STOCK + ask, "someone/heard", published, tmp_path, workshop)


def test_tokens_in_an_example_are_the_ids_of_a_clip(published: Path) -> None:
    processor = load_checkpoint(published).processor
    (frames,) = re.findall(r"frames = (\[.*?\])  #", examples(published)[0])
    codes = [list(row) for row in zip(*json.loads(frames.replace("(", "[").replace(",)", "]")), strict=True)]
    spoken = [
        {"role": "user", "content": [{"type": "audio", "codes": codes}, {"type": "text", "text": "What is heard?"}]}
    ]
    text = "".join(f"<|audio_0_{code}|>" for code in codes[0])
    typed = processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": f"<|audio_start|>{text}<|audio_end|>What is heard?"}], add_generation_prompt=True
    )["input_ids"]
    assert typed == processor.encode_messages(spoken, add_generation_prompt=True)


def test_a_dry_run_tells_all_and_writes_nothing(main: Callable, run: Run, tmp_path: Path, capsys: Any) -> None:
    main(flags(run, tmp_path / "hub", "--dry_run", "--results", str(run.mmar), "--repo", "a/b", "--push", "--private"))
    out = capsys.readouterr().out
    assert f"{(run.model / 'model.safetensors').stat().st_size:,}  model.safetensors" in out
    assert "pipeline_tag: audio-text-to-text" in out and "a/b, branch main, private" in out
    assert "--license not given" in out and "checkpoint-2" not in out and not list(tmp_path.iterdir())


def test_another_model_s_figures_are_refused(main: Callable, run: Run, workshop: Any, tmp_path: Path) -> None:
    untrained = ["--model", str(workshop.model), "--output", str(tmp_path / "hub")]
    with pytest.raises(DataError, match="measured on another model's weights"):
        main([*untrained, "--results", str(run.mmar)])
    main([*untrained, "--results", str(run.sound)])  # the codec is the same
    for field, name in (("vocabulary", "vocabulary"), ("weights", "model's weights")):
        result = json.loads(run.mmar.read_text())
        del result["manifest"][field]
        (tmp_path / "other.json").write_text(json.dumps(result))
        with pytest.raises(DataError, match=f"another {name}"):
            main(flags(run, tmp_path / "x", "--results", str(tmp_path / "other.json")))
    sound = json.loads(run.sound.read_text())
    sound["manifest"]["weights"] = "0" * 16
    (tmp_path / "other.json").write_text(json.dumps(sound))
    with pytest.raises(DataError, match="another codec's weights"):
        main(flags(run, tmp_path / "x", "--results", str(tmp_path / "other.json")))
    assert not (tmp_path / "x").exists()


def copied(run: Run, tmp_path: Path) -> Run:
    shutil.copytree(run.model, tmp_path / "copy")
    return run._replace(model=tmp_path / "copy")


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_faulty_folder_is_not_published(main: Callable, run: Run, tmp_path: Path) -> None:
    run = copied(run, tmp_path)
    edit(run.model / "generation_config.json", eos_token_id=1)
    with pytest.raises(ContractError, match=r"generation_config\.json eos_token_id"):
        main(flags(run, tmp_path / "hub"))


def test_what_only_this_machine_has_is_not_published(main: Callable, run: Run, tmp_path: Path) -> None:
    run = copied(run, tmp_path)
    edit(run.model / "tokenizer_config.json", name_or_path=str(tmp_path))
    main(flags(run, tmp_path / "hub"))  # known keys are left out
    assert "name_or_path" not in json.loads((tmp_path / "hub" / "tokenizer_config.json").read_text())
    edit(run.model / "generation_config.json", note=f"{tmp_path}/x")
    with pytest.raises(DataError, match=r"generation_config\.json would publish a path"):
        main(flags(run, tmp_path / "hub", "--overwrite_output"))
    edit(run.model / "generation_config.json", note="")
    edit(run.model / "processor_config.json", codec_reference=str(run.codec))
    with pytest.raises(DataError, match="which only this machine has; give --codec_id"):
        main(flags(run, tmp_path / "hub", "--overwrite_output"))
    edit(run.model / "processor_config.json", codec_reference="codec")
    edit(run.model / "manifest.json", vocabulary="0" * 16)
    with pytest.raises(DataError, match="of another run: its vocabulary"):
        main(flags(run, tmp_path / "hub", "--overwrite_output"))


def test_a_codec_by_its_id(main: Callable, run: Run, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    main(flags(run, tmp_path / "trusted", "--codec_id", "someone/codec"))
    assert "codec someone/codec: NOT CHECKED" in capsys.readouterr().out
    assert not (tmp_path / "trusted" / "codec").exists()
    assert (
        json.loads((tmp_path / "trusted" / "processor_config.json").read_text())["codec_reference"] == "someone/codec"
    )
    assert load_checkpoint(tmp_path / "trusted", codec=run.codec).processor.codec is not None

    from codec.zoo import load_codec

    monkeypatch.setattr("alm.publishing.publication.load_codec", lambda name: load_codec(run.codec))
    main(flags(run, tmp_path / "checked", "--codec_id", "someone/codec"))
    assert "codec someone/codec, fingerprint" in capsys.readouterr().out
    for wrong in ("codec", str(run.codec)):
        with pytest.raises(DataError, match="has the form OWNER/NAME"):
            main(flags(run, tmp_path / "x", "--codec_id", wrong))


def test_another_codec_behind_the_id(main: Callable, run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    from codec import EntangleCodec, EntangleCodecModel

    torch.manual_seed(7)
    other = EntangleCodec(EntangleCodecModel(EntangleCodecModel.from_pretrained(run.codec).config))
    monkeypatch.setattr("alm.publishing.publication.load_codec", lambda name: other)
    with pytest.raises(ContractError, match=f"someone/codec has codec fingerprint {other.fingerprint}"):
        main(flags(run, tmp_path / "x", "--codec_id", "someone/codec"))


def test_shards_are_published_by_their_index(main: Callable, run: Run, tmp_path: Path) -> None:
    run = copied(run, tmp_path)
    tensors = load_file(run.model / "model.safetensors")
    parts = [dict(list(tensors.items())[n::2]) for n in range(2)]
    shards = [f"model-0000{n + 1}-of-00002.safetensors" for n in range(2)]
    for name, part in zip(shards, parts, strict=True):
        save_file(part, run.model / name, metadata={"format": "pt"})
    index = {key: name for name, part in zip(shards, parts, strict=True) for key in part}
    (run.model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    with pytest.raises((DataError, ContractError), match=r"twice|not where it says"):
        main(flags(run, tmp_path / "hub"))
    (run.model / "model.safetensors").unlink()
    main(flags(run, tmp_path / "hub", "--results", str(run.mmar)))  # the same weights, in two files
    assert {*shards, "model.safetensors.index.json"} <= names(tmp_path / "hub")
    load_checkpoint(tmp_path / "hub")


def test_a_codec_alone(main: Callable, run: Run, workshop: Any, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    main(["--codec", str(run.codec), "--output", str(hub), "--results", str(run.sound), "--repo", "someone/codec"])
    assert names(hub) == {"config.json", "preprocessor_config.json", "model.safetensors", "README.md"}
    card = ModelCard.load(hub / "README.md")
    scores = json.loads(run.sound.read_text())["scores"]
    assert {r.metric_name for r in card.data.eval_results} == set(
        scores
    ) and "50 tokens, 250 bits a second" in card.text
    (example,) = examples(hub)
    assert "(1, 24)" in execute(example, "someone/codec", hub, tmp_path, workshop)  # 11,200 samples
    with pytest.raises(DataError, match="another vocabulary"):
        main(["--codec", str(run.codec), "--output", str(tmp_path / "x"), "--results", str(run.mmar)])


def test_a_codec_with_a_vocoder_is_heard(main: Callable, run: Run, workshop: Any, tmp_path: Path) -> None:
    from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel

    vocoder = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = EntangleCodecModel.from_pretrained(run.codec).config.to_dict()
    EntangleCodec(EntangleCodecModel(EntangleCodecConfig(**{**config, "vocoder": vocoder}))).save_pretrained(
        tmp_path / "c"
    )
    main(["--codec", str(tmp_path / "c"), "--output", str(tmp_path / "hub"), "--repo", "someone/codec"])
    (example,) = examples(tmp_path / "hub")
    execute(example, "someone/codec", tmp_path / "hub", tmp_path, workshop)
    assert (tmp_path / "decoded.wav").is_file()


def test_a_model_whose_codec_decodes_speaks(main: Callable, run: Run, workshop: Any, tmp_path: Path) -> None:
    from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel

    shutil.copytree(workshop.model, tmp_path / "model")
    silent = EntangleCodecModel.from_pretrained(run.codec)
    vocoder = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heard = EntangleCodecModel(EntangleCodecConfig(**{**silent.config.to_dict(), "vocoder": vocoder}))
    heard.load_state_dict(silent.state_dict(), strict=False)  # the same codes, so the same fingerprint
    EntangleCodec(heard).save_pretrained(tmp_path / "model" / "codec")
    main(["--model", str(tmp_path / "model"), "--output", str(tmp_path / "hub"), "--repo", "someone/heard"])
    _, _, spoken = examples(tmp_path / "hub")
    execute(spoken, "someone/heard", tmp_path / "hub", tmp_path, workshop)
    for name in ("speech.wav", "rain.wav"):
        assert 0.2 <= read_header(tmp_path / name).seconds <= 3.0


def test_an_adapter_names_its_base_by_id(main: Callable, run: Run, workshop: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from alm.adapters import lora_config

    model, processor = load_checkpoint(workshop.model)
    adapter = peft.get_peft_model(model, lora_config(processor.vocabulary, rank=2))
    adapter.save_pretrained(tmp_path / "adapter")
    edit(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(workshop.model))
    given = ["--model", str(tmp_path / "adapter"), "--output", str(tmp_path / "hub")]
    with pytest.raises(DataError, match="publish the grown base first"):
        main(given)
    main([*given, "--base_model", "someone/grown", "--repo", "someone/adapter"])
    assert names(tmp_path / "hub") == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    assert (card.data.library_name, card.data.base_model) == ("peft", "someone/grown")
    edit(tmp_path / "hub" / "adapter_config.json", base_model_name_or_path=str(workshop.model))
    (ask,) = examples(tmp_path / "hub")
    execute(ask, "someone/adapter", tmp_path / "hub", tmp_path, workshop)


class Hub:
    """Stands in for `HfApi`: keeps calls and the uploaded folder; `refusal` is raised by the call of that name."""

    def __init__(self, folder: Path, refusal: dict[str, Exception] | None = None) -> None:
        self.folder, self.refusal, self.calls = folder, refusal or {}, []

    def __call__(self) -> "Hub":
        return self

    def _called(self, name: str, *values: Any, **named: Any) -> None:
        self.calls.append((name, values, named))
        if name in self.refusal:
            raise self.refusal[name]

    def whoami(self) -> dict[str, str]:
        self._called("whoami")
        return {"name": "someone"}

    def create_repo(self, *values: Any, **named: Any) -> None:
        self._called("create_repo", *values, **named)

    def create_branch(self, *values: Any, **named: Any) -> None:
        self._called("create_branch", *values, **named)

    def upload_folder(self, *, folder_path: Path, **named: Any) -> Any:
        self._called("upload_folder", folder_path=folder_path, **named)
        shutil.copytree(folder_path, self.folder)
        return SimpleNamespace(oid="c0ffee")

    def hf_hub_download(self, repo: str, name: str, **named: Any) -> str:
        self._called("hf_hub_download", repo, name, **named)
        return str(self.folder / name)


PUSH = ["--repo", "someone/heard", "--push"]


def test_a_push_uploads_exactly_the_folder(
    main: Callable, run: Run, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    hub = Hub(tmp_path / "remote")
    monkeypatch.setattr("alm.publishing.hub.HfApi", hub)
    main(flags(run, tmp_path / "hub", *PUSH, "--private", "--revision", "v1", "--message", "First", "--verify"))
    assert [name for name, _, _ in hub.calls] == [
        *("whoami", "create_repo", "create_branch", "upload_folder", "hf_hub_download")
    ]
    calls = {name: (values, named) for name, values, named in hub.calls}
    assert calls["create_repo"] == (("someone/heard",), {"private": True, "repo_type": "model", "exist_ok": True})
    assert calls["create_branch"] == (("someone/heard",), {"branch": "v1", "repo_type": "model", "exist_ok": True})
    named = calls["upload_folder"][1]
    assert (named["repo_id"], named["commit_message"], named["revision"]) == ("someone/heard", "First", "v1")
    assert calls["hf_hub_download"] == (("someone/heard", "config.json"), {"revision": "c0ffee"})
    assert names(hub.folder) == names(tmp_path / "hub")
    assert "pushed to someone/heard at c0ffee" in capsys.readouterr().out


def test_the_fake_hub_takes_what_the_real_one_takes() -> None:
    import inspect

    for name in ("create_repo", "create_branch", "upload_folder", "hf_hub_download", "whoami"):
        taken = set(inspect.signature(getattr(huggingface_hub.HfApi, name)).parameters)
        source = (ROOT / "alm" / "publishing" / "hub.py").read_text()
        (call,) = re.findall(rf"\.{name}\(((?:[^()]|\([^()]*\))*)\)", source)
        assert set(re.findall(r"(\w+)=", call)) <= taken


def test_what_arrived_is_compared(main: Callable, run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    hub = Hub(tmp_path / "remote")
    monkeypatch.setattr("alm.publishing.hub.HfApi", hub)
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: str(run.model / "processor_config.json"))
    with pytest.raises(DataError, match=r"config\.json of someone/heard at c0ffee is not the one"):
        main(flags(run, tmp_path / "hub", *PUSH, "--verify"))


def denied(code: int) -> HfHubHTTPError:
    response: Any = SimpleNamespace(status_code=code, headers={}, request=None)
    return HfHubHTTPError(f"{code} Client Error", response=response)


@pytest.mark.parametrize(
    ("call", "error", "cure"),
    [
        ("whoami", LocalTokenNotFoundError("Token is required"), "Log in with `hf auth login`"),
        ("whoami", denied(401), "may not write to someone"),
        ("create_repo", denied(403), "may not write to someone"),
        ("upload_folder", denied(500), "Try again; the folder is whole"),
        ("upload_folder", OSError("connection lost"), "Try again; the folder is whole"),
        ("upload_folder", HfHubHTTPError.__bases__[0]("no route"), "Try again; the folder is whole"),
    ],
)
def test_a_refusal_is_explained(
    main: Callable, run: Run, tmp_path: Path, monkeypatch: Any, call: str, error: Exception, cure: str
) -> None:
    monkeypatch.setattr("alm.publishing.hub.HfApi", Hub(tmp_path / "remote", {call: error}))
    with pytest.raises(DataError, match=f"someone/heard: the Hub refused: .*{cure}"):
        main(flags(run, tmp_path / "hub", *PUSH))
    assert (tmp_path / "hub").exists() == (call != "whoami")  # without a login nothing is begun


def test_offline_and_an_unknown_codec_stop_a_push(main: Callable, run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(DataError, match=r"Unset HF_HUB_OFFLINE|Log in with"):
        main(flags(run, tmp_path / "hub", *PUSH))
    monkeypatch.setattr("alm.publishing.hub.HfApi", Hub(tmp_path / "remote"))
    with pytest.raises(DataError, match="Publish the codec first"):
        main(flags(run, tmp_path / "hub", *PUSH, "--codec_id", "someone/codec"))


def test_refusals(main: Callable, run: Run, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(DataError, match="--overwrite_output"):
        main(flags(run, tmp_path))
    for place in (run.model, run.model.parent):
        with pytest.raises(DataError, match="holds, what is to be published"):
            main(flags(run, place, "--overwrite_output"))
    assert (run.model / "config.json").is_file()
    for wrong, message in [
        (["--output", "o"], "either --model or --codec"),
        (["--output", "o", "--codec", "c", "--codec_id", "a/b"], "goes with --model"),
        (["--output", "o", "--model", "m", "--push"], "--push needs --repo"),
        (["--output", "o", "--model", "m", "--verify"], "go with --push"),
    ]:
        with pytest.raises(SystemExit):
            main(wrong)
        assert message in capsys.readouterr().err
