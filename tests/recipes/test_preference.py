"""`recipes/preference.py`: ids are the processor's own, preferences are learned, rewards judge, bad rows are refused."""

import json
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from alm.arguments import ConfigFileError
from alm.checkpoint import load_checkpoint, save_checkpoint
from alm.data.example import DataError
from alm.data.tokens import TokenStore
from alm.encoding import IGNORED
from alm.generation.grammar import AudioGrammar
from alm.preference import rewards
from alm.preference.pairs import pair_ids, read_pairs
from alm.preference.questions import AUDIO, TEXT, question, read_questions
from alm.preference.validity import loop_share
from alm.processing import AudioLanguageProcessor, LengthError
from alm.scoring.sound.base import Found
from alm.scoring.speech.recognition import Recogniser
from alm.scoring.speech.words import WordErrors
from alm.training.run import file_digest
from alm.vocabulary import ContractError

launch = runpy.run_path(str(Path(__file__).with_name("several_runs.py")))["launch"]
SCRIPT = Path(__file__).parents[2] / "recipes" / "preference.py"
FAST = ["--logging_steps", "1", "--gradient_checkpointing", "false", "--disable_tqdm", "true", "--warmup_steps", "0"]
FAST += ["--use_cpu", "true"]


@pytest.fixture(scope="module")
def main() -> Any:
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture(scope="module")
def processor(workshop: Any) -> Any:
    return load_checkpoint(workshop.model).processor


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def clip(workshop: Any, number: int) -> dict[str, Any]:
    return {"type": "audio", "path": f"{workshop.folder}/audio/{number}.wav"}


def asked(item: dict[str, Any], text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [item, {"type": "text", "text": text}]}]


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


# ---- DPO ----------------------------------------------------------------------------------------------------------


def pairs(workshop: Any, numbers: range) -> list[dict[str, Any]]:
    """Answers in text, and utterances: the shorter clip is preferred."""
    texts = [
        {"prompt": asked(clip(workshop, n), f"Which sound is {n}?"), "chosen": "bell", "rejected": "loud"}
        for n in numbers
    ]
    spoken = [
        {
            "prompt": f"Say this: bell {n}",
            "chosen": {"type": "audio", "codes": [[3] * 6]},
            "rejected": [clip(workshop, n)],
        }
        for n in numbers
    ]
    return [*texts, *spoken]


def dpo(workshop: Any, folder: Path, *more: str, output: str = "dpo") -> list[str]:
    train = write(folder / "train.jsonl", pairs(workshop, range(4)))
    held = write(folder / "held.jsonl", pairs(workshop, range(4, 6)))
    fixed = ["--method", "dpo", "--model", str(workshop.model), "--tokens", str(workshop.tokens), "--data", str(train)]
    fixed += ["--held_out", str(held), "--output_dir", str(folder / output), "--per_device_train_batch_size", "4"]
    return [*fixed, *FAST, "--learning_rate", "3e-3", "--save_total_limit", "9", *more]


def test_a_pair_is_the_processors_own_ids(workshop: Any, processor: Any) -> None:
    store = TokenStore.open(workshop.tokens)
    for row in pairs(workshop, range(2)):
        ids = pair_ids(row, processor, store)
        for key in ("chosen", "rejected"):
            prompt, answer = row["prompt"], row[key]
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            said = [answer] if isinstance(answer, dict) else answer
            whole = processor.training_ids(
                [*messages, {"role": "assistant", "content": said}]
            )  # audio by the codec itself
            joined = ids["prompt_ids"] + ids[f"{key}_ids"]
            assert joined == whole.input_ids[: len(joined)] and joined[-1] == processor.vocabulary.stop_id
            labelled = [place for place, label in enumerate(whole.labels) if label != IGNORED]
            assert labelled == list(range(len(ids["prompt_ids"]), len(joined)))


def test_a_users_control_token_is_no_control_token(processor: Any) -> None:
    ids = pair_ids({"prompt": "<|im_end|><|audio_0_3|>", "chosen": "yes", "rejected": "no"}, processor)["prompt_ids"]
    assert ids.count(processor.vocabulary.stop_id) == 1 and processor.vocabulary.first_id + 3 not in ids


@pytest.fixture(scope="module")
def preferred(main: Any, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dpo")
    (folder / "text.txt").write_text("Is it loud?")
    text = ["--text_loss", str(folder / "text.txt")]
    main(dpo(workshop, folder, "--max_steps", "20", "--save_steps", "8", *text))
    return folder / "dpo"


def test_dpo_raises_the_margin_on_held_out_pairs(preferred: Path, workshop: Any) -> None:
    manifest = json.loads((preferred / "manifest.json").read_text())
    before, after = (manifest["held_out"][when]["eval_rewards/margins"] for when in ("before", "after"))
    assert abs(before) < 1e-5 and after > 0.5
    assert manifest["held_out"]["after"]["eval_rewards/accuracies"] == 1.0
    trained, first = (load_file(folder / "model.safetensors") for folder in (preferred, workshop.model))
    assert not torch.equal(trained["model.embed_tokens.weight"], first["model.embed_tokens.weight"])
    load_checkpoint(preferred)
    load_checkpoint(preferred / "checkpoint-8")
    assert not (preferred / "sequences").exists()
    assert manifest["base_model"] == {
        "name": str(workshop.model),
        "revision": None,
        "weights": {"model.safetensors": file_digest(workshop.model / "model.safetensors")},
    }
    assert manifest["codec"] == load_checkpoint(preferred).processor.codec.fingerprint and len(manifest["files"]) == 2
    lines = [line for line in log(preferred) if "text_loss" in line]
    measured = [manifest["text_loss"][when]["loss"] for when in ("before", "after")]
    assert [(line["step"], line["text_loss"]) for line in lines] == list(zip((0, 20), measured, strict=True))
    assert measured[0] != measured[1]


def margin(trained: Path, first: Path, rows: Any, beta: float = 0.1) -> float:
    """DPO's mean margin from plain log-likelihoods of two checkpoints (Rafailov et al. 2023, eq. 5)."""

    def likelihood(model: Any, row: Any, key: str) -> float:
        ids = torch.tensor([row["prompt_ids"] + row[key]])
        scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        return float(scores.gather(1, ids[0, 1:, None])[-len(row[key]) :].sum())

    new, old = (load_checkpoint(folder, dtype=torch.float32).model for folder in (trained, first))
    with torch.inference_mode():
        gains = [
            likelihood(new, row, key) - likelihood(old, row, key)
            for row in rows
            for key in ("chosen_ids", "rejected_ids")
        ]
    return beta * float(np.mean(np.subtract(gains[::2], gains[1::2])))


def untied(workshop: Any, folder: Path) -> Path:
    numbers = {**yaml.safe_load(workshop.config.read_text()), "tie_word_embeddings": False}
    (folder / "untied.yaml").write_text(yaml.safe_dump(numbers))
    grow = runpy.run_path(str(SCRIPT.with_name("extend_vocabulary.py")))["main"]
    texts = ["--texts", f"{workshop.folder}/music.json", f"{workshop.folder}/clotho.csv"]
    grow(
        [
            "--from_config",
            str(folder / "untied.yaml"),
            *texts,
            "--codec",
            str(workshop.codec),
            "--output",
            f"{folder}/first",
        ]
    )
    return folder / "first"


@pytest.mark.parametrize("tuning", ["full", "lora", "lora, untied"])
def test_the_margin_is_that_of_plain_likelihoods(
    main: Any, workshop: Any, processor: Any, tmp_path: Path, tuning: str
) -> None:
    first = untied(workshop, tmp_path) if "untied" in tuning else workshop.model
    more = ["--lora_rank", "4", "--learning_rate", "3e-2"] if "lora" in tuning else []
    main([*dpo(workshop, tmp_path, "--max_steps", "6", *more), "--model", str(first)])
    after = json.loads((tmp_path / "dpo" / "manifest.json").read_text())["held_out"]["after"]["eval_rewards/margins"]
    rows = read_pairs(tmp_path / "held.jsonl", processor, TokenStore.open(workshop.tokens))
    assert margin(tmp_path / "dpo", first, rows) == pytest.approx(after, rel=1e-3) and abs(after) > 0.1


def test_other_data_or_tuning_cannot_go_on(main: Any, workshop: Any, preferred: Path, tmp_path: Path) -> None:
    output = tmp_path / "dpo"
    shutil.copytree(preferred, output)
    (output / "manifest.json").unlink()
    with pytest.raises(DataError, match="was trained with full fine-tuning"):
        main(dpo(workshop, tmp_path, "--max_steps", "20", "--lora_rank", "4"))
    (output / "sequences").mkdir(exist_ok=True)
    manifest = json.loads((preferred / "manifest.json").read_text())
    record = output / "sequences" / "data.json"
    record.write_text(json.dumps(manifest["data"]))
    main(dpo(workshop, tmp_path, "--max_steps", "20"))  # the same data
    (output / "manifest.json").unlink()
    held = ["--held_out", str(write(tmp_path / "other.jsonl", pairs(workshop, range(3, 6))))]
    for other in (["--data", held[1]], held, ["--seed", "3"]):
        (output / "sequences").mkdir(exist_ok=True)
        record.write_text(json.dumps(manifest["data"]))
        with pytest.raises(DataError, match="data differ"):
            main([*dpo(workshop, tmp_path, "--max_steps", "20"), *other])
    main(dpo(workshop, tmp_path, "--max_steps", "1", "--overwrite_output"))


def test_lora_is_its_own_reference(main: Any, workshop: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    main(dpo(workshop, tmp_path, "--max_steps", "20", "--lora_rank", "4", "--learning_rate", "3e-2"))
    manifest = json.loads((tmp_path / "dpo" / "manifest.json").read_text())
    before, after = (manifest["held_out"][when]["eval_rewards/margins"] for when in ("before", "after"))
    assert abs(before) < 1e-5 and after > 0.5
    load_checkpoint(tmp_path / "dpo")
    load_checkpoint(tmp_path / "dpo" / "adapter")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "'rejected' must be"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "the same"),
        ({"prompt": [], "chosen": "b", "rejected": "c"}, "'prompt' must be"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "chosen": "b", "rejected": "c"}, "ends with a message"),
        ({"prompt": "a", "chosen": {"role": "user", "content": "b"}, "rejected": "c"}, "message of 'user'"),
        ({"prompt": "a", "chosen": {"type": "audio", "codes": [[99]]}, "rejected": "c"}, "99"),
        ({"prompt": "a", "chosen": {"type": "audio", "path": "x.wav"}, "rejected": "c"}, "--tokens"),
        ({"prompt": "a " * 99, "chosen": "b", "rejected": "c"}, "--max_length 64"),
    ],
)
def test_bad_pairs_are_refused_by_file_and_row(processor: Any, tmp_path: Path, row: Any, message: str) -> None:
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    with pytest.raises(DataError, match=rf"pairs\.jsonl, row 2: .*{message}"):
        read_pairs(write(tmp_path / "pairs.jsonl", [good, row]), processor, None, 64)


# ---- GRPO ---------------------------------------------------------------------------------------------------------

YES_NO = {"loud": "yes", "far": "yes"}
"""One layer learns to prefer an answer from 40 rewards; which question wants which takes it more (docs/log.md)."""


def questions(workshop: Any, numbers: range) -> list[dict[str, Any]]:
    return [
        {"question": f"Is it {word}?", "choices": ["yes", "no"], "answer": gold, "audio_path": f"./audio/{n}.wav"}
        for n in numbers
        for word, gold in YES_NO.items()
    ]


@pytest.fixture(scope="module")
def undecided(workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says yes or no, and does not know which."""
    folder = tmp_path_factory.mktemp("undecided")
    model, processor = load_checkpoint(workshop.model, dtype=torch.float32)
    asking, _ = read_questions(
        write(folder / "q.jsonl", questions(workshop, range(4))),
        processor,
        TokenStore.open(workshop.tokens),
        str(workshop.folder),
    )
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    for step in range(60):
        prompt = processor.tokenizer(asking[step // 2 % len(asking)]["prompt"]).input_ids
        said = [*processor.tokenizer(["yes", "no"][step % 2]).input_ids, processor.vocabulary.stop_id]
        ids = torch.tensor([[*prompt, *said]])
        labels = torch.where(torch.arange(ids.shape[1]) < len(prompt), IGNORED, ids)
        if step % 2 == 0:
            optimiser.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        if step % 2:
            optimiser.step()
    save_checkpoint(model.eval(), processor, folder / "lm")
    return folder / "lm"


def grpo(workshop: Any, model: Path, folder: Path, *more: str) -> list[str]:
    train = write(folder / "train.jsonl", questions(workshop, range(4)))
    held = write(folder / "held.jsonl", questions(workshop, range(4, 6)))
    fixed = ["--method", "grpo", "--model", str(model), "--tokens", str(workshop.tokens), "--data", str(train)]
    fixed += ["--held_out", str(held), "--audio", str(workshop.folder), "--output_dir", str(folder / "grpo")]
    fixed += ["--per_device_train_batch_size", "16", "--per_device_eval_batch_size", "8", "--num_generations", "8"]
    return [*fixed, "--max_completion_length", "8", "--save_total_limit", "9", *FAST, *more]


def test_grpo_raises_held_out_accuracy(main: Any, workshop: Any, undecided: Path, tmp_path: Path) -> None:
    more = ["--rewards", "choice", "validity", "--learning_rate", "5e-3", "--max_steps", "40"]
    (tmp_path / "text.txt").write_text("Is it loud?")
    main(grpo(workshop, undecided, tmp_path, *more, "--text_loss", str(tmp_path / "text.txt")))
    manifest = json.loads((tmp_path / "grpo" / "manifest.json").read_text())
    assert manifest["text_loss"]["before"]["loss"] < manifest["text_loss"]["after"]["loss"]
    before, after = (manifest["held_out"][when]["eval_rewards/choice_accuracy/mean"] for when in ("before", "after"))
    assert before < 0.75 and after > 0.95
    load_checkpoint(tmp_path / "grpo")


def test_other_rewards_cannot_go_on(main: Any, workshop: Any, undecided: Path, tmp_path: Path) -> None:
    more = ["--rewards", "choice", "--max_steps", "2", "--save_steps", "1"]
    main(grpo(workshop, undecided, tmp_path, *more))
    output = tmp_path / "grpo"
    data = json.loads((output / "manifest.json").read_text())["data"]
    (output / "manifest.json").unlink()
    (output / "sequences").mkdir()
    asked = ["--num_generations", "4"]
    for other in (["--rewards", "choice", "validity"], ["--grammar", "false"], ["--reward_weights", "2"], asked):
        (output / "sequences" / "data.json").write_text(json.dumps(data))
        with pytest.raises(DataError, match="data differ"):
            main(grpo(workshop, undecided, tmp_path, *more, *other))


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """Of a record of the log what does not depend on how long something took."""
    return {key: value for key, value in record.items() if not re.search("time|second", key)}


RESUMED = ["dpo", "dpo --lora_rank 4", "grpo", "grpo --lora_rank 4 --beta 0.05", "grpo --beta 0.05"]
RESUMED += ["grpo --gradient_accumulation_steps 2"]


@pytest.mark.parametrize("kept", [5, 10])
@pytest.mark.parametrize("method", RESUMED)
def test_it_goes_on_to_the_same_weights(
    main: Any, workshop: Any, undecided: Path, tmp_path: Path, method: str, kept: int
) -> None:
    name, *more = method.split()
    more += ["--max_steps", "10", "--save_steps", "5", "--learning_rate", "5e-3", "--logging_steps", "3"]
    rewarded = ["--rewards", "choice", *more]
    command = dpo(workshop, tmp_path, *more) if name == "dpo" else grpo(workshop, undecided, tmp_path, *rewarded)
    main(command)
    whole, output = tmp_path / "whole", tmp_path / name
    shutil.copytree(output, whole)
    measured = json.loads((whole / "manifest.json").read_text())["held_out"]
    # as a kill leaves it: behind a checkpoint, or between the last step and the manifest
    for file in ("manifest.json", "model.safetensors"):
        (output / file).unlink()
    for checkpoint in output.glob("checkpoint-*"):
        if int(checkpoint.name.rpartition("-")[2]) > kept:
            shutil.rmtree(checkpoint)
    (output / "sequences").mkdir()
    known = measured if kept == 10 else {**measured, "after": None}
    (output / "sequences" / "held_out.json").write_text(json.dumps(known))
    main(command)
    one, other = (load_file(folder / "model.safetensors") for folder in (output, whole))
    assert all(torch.equal(one[name], other[name]) for name in other)
    again = json.loads((output / "manifest.json").read_text())["held_out"]
    assert again["before"] == measured["before"] and timeless(again["after"]) == timeless(measured["after"])
    # the mean loss at its end too, and what is held out once
    assert [timeless(line) for line in log(output)] == [timeless(line) for line in log(whole)]


def test_two_processes_train_one_model(workshop: Any, undecided: Path, tmp_path: Path) -> None:
    """A run that goes on has the first process's weights on both: it comes to the same only where both had them all along."""
    more = ["--rewards", "choice", "--max_steps", "4", "--save_steps", "2", "--learning_rate", "5e-3"]
    more += ["--per_device_train_batch_size", "8"]
    runs = [
        {"argv": [*grpo(workshop, undecided, tmp_path, *more), "--output_dir", output], "output": output, "from": first}
        for output, first in (
            (f"{tmp_path}/whole", None),
            (f"{tmp_path}/middle", f"{tmp_path}/whole/checkpoint-2"),
            (f"{tmp_path}/end", f"{tmp_path}/whole/checkpoint-4"),
        )
    ]
    printed = launch(SCRIPT.parent / "configs" / "accelerate" / "eight_gpus.yaml", SCRIPT, runs, tmp_path)
    assert "float32 on 2 × CPU" in printed
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    for name in ("middle", "end"):
        other = load_file(tmp_path / name / "model.safetensors")
        assert all(torch.equal(other[key], whole[key]) for key in whole)
        assert [timeless(line) for line in log(tmp_path / name)] == [timeless(line) for line in log(tmp_path / "whole")]


def test_audio_is_made_under_the_grammar(main: Any, workshop: Any, tmp_path: Path) -> None:
    train = write(tmp_path / "say.jsonl", [{"say": "bell"}, {"say": "loud"}])
    fixed = [
        "--method",
        "grpo",
        "--model",
        str(workshop.model),
        "--data",
        str(train),
        "--output_dir",
        str(tmp_path / "g"),
    ]
    fixed += ["--rewards", "validity", "--max_seconds", "0.5", "--min_seconds", "0.1", "--max_steps", "2"]
    fixed += ["--per_device_train_batch_size", "8", "--num_generations", "4", *FAST]
    main(fixed)
    valid = [line["rewards/validity/mean"] for line in log(tmp_path / "g") if "rewards/validity/mean" in line]
    assert len(valid) == 2 and min(valid) > 0.45  # all ids are allowed; not every end is the model's own
    main([*fixed, "--grammar", "false", "--overwrite_output"])
    free = [line["rewards/validity/mean"] for line in log(tmp_path / "g") if "rewards/validity/mean" in line]
    assert max(free) < 0.1  # a random model without it


def test_speech_is_judged_by_a_recogniser_that_is_named(
    main: Any, workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Recogniser("a stand-in", lambda wave: "bell")
    monkeypatch.setattr("alm.scoring.speech.recognition.find_recogniser", lambda name: Found(name))
    monkeypatch.setattr("alm.scoring.speech.recognition.load_recogniser", lambda found, device: heard)
    monkeypatch.setattr(AudioLanguageProcessor, "decode_audio", lambda self, ids: np.zeros(2_400, dtype=np.float32))
    train = write(tmp_path / "say.jsonl", [{"say": "bell"}, {"say": "bell loud"}])
    fixed = [
        "--method",
        "grpo",
        "--model",
        str(workshop.model),
        "--data",
        str(train),
        "--output_dir",
        str(tmp_path / "g"),
    ]
    fixed += ["--rewards", "wer", "validity", "--reward_weights", "2", "1", "--max_seconds", "0.5", "--max_steps", "1"]
    main([*fixed, "--per_device_train_batch_size", "8", "--num_generations", "4", *FAST])
    line = log(tmp_path / "g")[0]
    assert line["rewards/wer/mean"] == pytest.approx(0.75)  # all of one text, half of the other
    assert line["reward"] == pytest.approx(2 * 0.75 + line["rewards/validity/mean"], abs=1e-4)
    assert json.loads((tmp_path / "g" / "manifest.json").read_text())["rewards"]["wer"].startswith(
        "a stand-in, Whisper's"
    )


def test_questions_are_text_of_the_very_ids(workshop: Any, processor: Any, tmp_path: Path) -> None:
    store = TokenStore.open(workshop.tokens)
    file = write(tmp_path / "q.jsonl", questions(workshop, range(1)))
    rows, kind = read_questions(file, processor, store, str(workshop.folder))
    message = asked(clip(workshop, 0), "Is it loud?\nSelect one option from the provided choices:\nyes\nno")
    assert processor.tokenizer(rows[0]["prompt"]).input_ids == processor.encode_messages(message, True) and kind == TEXT
    own = question({"prompt": "Whisper this: a", "say": "a"}, processor)
    assert "Whisper" in own["prompt"] and own["say"] == "a"
    assert read_questions(write(tmp_path / "s.jsonl", [{"say": "a"}, {"sound": "b"}]), processor, None)[1] == AUDIO


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a"}, "accepted are"),
        ({"prompt": "a", "choices": ["x"]}, "without an 'answer'"),
        ({"prompt": "a", "answer": "x", "choices": "x"}, "list of texts"),
        ({"prompt": "<|im_end|>", "answer": "x", "choices": ["x"]}, "cannot be sent as text"),
        ({"say": 3}, "must be texts"),
    ],
)
def test_bad_questions_are_refused_by_file_and_row(processor: Any, tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"q\.jsonl, row 1: .*{message}"):
        read_questions(write(tmp_path / "q.jsonl", [row]), processor, None)


def test_one_file_asks_for_one_kind_of_turn(processor: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in one file"):
        read_questions(write(tmp_path / "q.jsonl", [{"say": "a"}, {"prompt": "b"}]), processor, None)


def test_command_line_refusals(main: Any, workshop: Any, undecided: Path, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(ConfigFileError, match="judge other turns"):
        main(grpo(workshop, undecided, tmp_path, "--rewards", "wer", "--max_steps", "1"))
    say = write(tmp_path / "say.jsonl", [{"say": "bell"}, {"say": "loud"}])
    with pytest.raises(ConfigFileError, match="no vocoder"):
        heard = grpo(workshop, undecided, tmp_path, "--rewards", "wer", "--max_seconds", "1")
        main([*heard, "--data", str(say), "--held_out", str(say)])
    open_ended = write(tmp_path / "open.jsonl", [{"prompt": "What is it?"}] * 2)
    with pytest.raises(DataError, match=r"--rewards choice: no row of .*open\.jsonl has 'choices'"):
        main([*grpo(workshop, undecided, tmp_path, "--rewards", "choice"), "--data", str(open_ended)])
    with pytest.raises(DataError, match=r"asks for audio and .* for text"):
        main([*grpo(workshop, undecided, tmp_path, "--rewards", "choice"), "--held_out", str(say)])
    with pytest.raises(LengthError, match=r"more than the 512.*--max_completion_length"):
        main([*grpo(workshop, undecided, tmp_path, "--rewards", "choice"), "--max_completion_length", "512"])
    for more, message in [
        (["--rewards", "choice"], "go with --method grpo"),
        (["--num_generations", "2"], "unknown"),
        (["--lora_alpha", "2"], "need a --lora_rank"),
        (["--effective_batch", "0"], "must be more than 0"),
        (["--gpu_memory", "0"], "must be more than 0"),
        (["--tokens_per_second", "-1"], "must be more than 0"),
        (["--min_seconds", "5", "--max_seconds", "1"], "leave no length"),
    ]:
        with pytest.raises(SystemExit):
            main(dpo(workshop, tmp_path, *more))
        assert message in capsys.readouterr().err
    for more, message in [
        (["--per_device_eval_batch_size", "3"], "3 × 1 processes is no multiple of the 8 turns"),
        (["--reward_weights", "1", "2"], "--reward_weights are 2 and --rewards 1"),
    ]:
        with pytest.raises(ConfigFileError, match=message):
            main(grpo(workshop, undecided, tmp_path, "--rewards", "choice", *more))
    alone = dpo(workshop, tmp_path, "--eval_strategy", "steps", "--eval_steps", "1")
    del alone[alone.index("--held_out") : alone.index("--held_out") + 2]
    with pytest.raises(ConfigFileError, match="--eval_strategy steps needs --held_out"):
        main(alone)
    (tmp_path / "bare").mkdir()
    shutil.copy(workshop.model / "config.json", tmp_path / "bare")
    planned = dpo(workshop, tmp_path, "--dry_run", "--machine", str(SCRIPT.parent / "configs/accelerate/zero2.yaml"))
    with pytest.raises(ContractError, match="holds no processor"):
        main([*planned, "--model", str(tmp_path / "bare")])
    with pytest.raises(DataError, match="has 8 questions, and 16 are asked at once"):
        main(grpo(workshop, undecided, tmp_path, "--rewards", "choice", "--gradient_accumulation_steps", "8"))


def test_the_plan_of_pairs(main: Any, workshop: Any, tmp_path: Path, capsys: Any) -> None:
    accelerate = SCRIPT.parent / "configs" / "accelerate"
    elsewhere = ["--machine", str(accelerate / "eight_gpus.yaml"), "--gpu_memory", "80", "--effective_batch", "64"]
    for more in ([], elsewhere, [*elsewhere, "--lora_rank", "4", "--num_train_epochs", "4"]):
        main(dpo(workshop, tmp_path, "--dry_run", *more, output="nothing"))
        out = capsys.readouterr().out
        assert "8 pairs of" in out and "(4 held out)" in out and "GiB" in out
        assert "trained        21,632 parameters: full fine-tuning" in out or "LoRA of rank 4" in out
        assert ("the model without its adapter" if "--lora_rank" in more else "a frozen copy of the model") in out
        assert ("64 pairs (4 pairs a device × 2 accumulated × 8)" in out) == bool(more)
        assert ("at most 90%: fits" in out) == bool(more)
    assert "training       4 steps of 64 pairs" in out and not (tmp_path / "nothing").exists()


def test_the_plan_of_turns(main: Any, workshop: Any, undecided: Path, tmp_path: Path, capsys: Any) -> None:
    main(grpo(workshop, undecided, tmp_path, "--rewards", "choice", "--dry_run", "--max_steps", "3"))
    out = capsys.readouterr().out
    assert "8 questions of" in out and "turns of up to 8" in out and "reference      none (--beta 0)" in out
    assert (
        "training       3 steps of 2 questions × 8 turns (16 turns a device × 1 accumulated × 1), about 0.8 passes"
        in out
    )
    machine = SCRIPT.parent / "configs" / "accelerate" / "eight_gpus.yaml"
    # without data, and with speech to be drawn: as long as it may be
    bare = [
        "--method",
        "grpo",
        "--rewards",
        "wer",
        "--model",
        str(undecided),
        "--output_dir",
        str(tmp_path / "nothing"),
    ]
    bare += ["--dry_run", "--machine", str(machine), "--effective_batch", "256", "--max_seconds", "10", "--beta", "0.1"]
    main([*bare, "--max_steps", "5", "--tokens_per_second", "1000", "--use_cpu", "true"])
    out = capsys.readouterr().out
    assert "5 steps of 32 questions × 8 turns (8 turns a device × 4 accumulated × 8)" in out
    length = 2_048 + 10 * 50 + 3
    assert f"for {5 * 256 * length:,} tokens at 1,000 a second" in out and "a frozen copy of the model" in out


# ---- rewards ------------------------------------------------------------------------------------------------------


def test_choice_accuracy_is_the_official_rule() -> None:
    said = ["yes", "The answer is: yes", "yes or no", "", "yes"]
    choices = [["yes", "no"]] * 4 + [None]
    assert rewards.choice_accuracy(said, ["yes"] * 5, choices) == [1.0, 1.0, 0.0, 0.0, None]


def spans(vocabulary: Any) -> dict[str, list[int]]:
    start, end, stop, code = vocabulary.start_id, vocabulary.end_id, vocabulary.stop_id, vocabulary.first_id
    return {
        "whole": [start, code, code + 1, end, stop],
        "forced end": [start, code, code + 1, code + 2, end, stop],
        "no start": [code, code + 1, end, stop],
        "empty span": [start, end, stop],
        "no end": [start, code, code + 1],
        "text inside": [start, code, 5, end, stop],
        "empty": [],
    }


def test_validity_of_turns(processor: Any) -> None:
    judge = rewards.Validity(AudioGrammar(processor.vocabulary, 1, 3), processor)
    turns = spans(processor.vocabulary)
    found = dict(zip(turns, judge(completion_ids=list(turns.values())), strict=True))
    expected = {
        "whole": 1,
        "forced end": 1 / 2,
        "no start": 0,
        "empty span": 1 / 6,
        "no end": 1 / 2,
        "text inside": 1 / 5,
    }
    expected |= {"empty": 0}
    assert found == pytest.approx(expected)
    vocabulary = processor.vocabulary
    loop = [vocabulary.start_id, *[vocabulary.first_id] * 18, vocabulary.end_id, vocabulary.stop_id]
    long = rewards.Validity(AudioGrammar(vocabulary, 1, 30), processor)
    assert long(completion_ids=[loop, loop[:-1]]) == pytest.approx([1 - 18 / 21, (1 - 18 / 20) / 2])
    text = rewards.Validity(AudioGrammar(vocabulary, text=True, max_spans=0), processor)
    assert text(completion_ids=[[5, vocabulary.stop_id], [5, vocabulary.start_id]]) == pytest.approx([1, 1 / 4])


def test_loops_are_found_and_rests_are_not() -> None:
    assert loop_share([]) == loop_share(range(50)) == loop_share([1] * 7) == 0
    assert loop_share([1] * 8) == loop_share([1, 2, 3] * 8) == 1
    assert loop_share([*range(10, 18), *[1, 2] * 8]) == 16 / 24


def test_words_and_captions_judge_decodable_spans_only(processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[list[int]] = []
    heard: list[int] = []

    def decode(ids: list[int]) -> Any:  # the tiny codec has no vocoder
        decoded.append(ids)
        return np.zeros(2_400, dtype=np.float32)

    monkeypatch.setattr(processor, "decode_audio", decode)

    def count(reference: str, said: str) -> WordErrors:
        return WordErrors(int(said), len(reference.split()))

    turns = spans(processor.vocabulary)
    ids = [turns[name] for name in ("whole", "forced end", "no start", "empty span", "no end", "text inside", "empty")]
    judge = rewards.SpokenWords(processor, lambda wave: heard.append(len(wave)) or "1", count)  # type: ignore[func-returns-value]
    assert judge(completion_ids=ids, say=["a b"] * 7) == [0.5, 0.5, 0, 0, 0, 0, 0]
    assert decoded == [turns["whole"][:-1], turns["forced end"][:-1]]  # without the stop token
    assert heard == [1_600, 1_600]  # 0.1 s at the recogniser's rate
    assert judge(completion_ids=ids[:1], say=[None]) == [None]
    assert judge(completion_ids=ids[:1], say=["a"]) == [0.0]
    fits = rewards.CaptionSimilarity(processor, lambda wave, text: 0.25, 48_000)
    assert fits(completion_ids=ids[1:3], caption=["rain"] * 2) == [0.25, -1.0]
    assert fits(completion_ids=ids[:1], caption=[None]) == [None]
