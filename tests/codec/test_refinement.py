from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import TrainingArguments

from codec import EntangleCodec, EntangleCodecForPreTraining, EntangleCodecModel
from codec.audio import read_audio, write_audio
from codec.coded_crops import CodedMelCrops, CodesError, collate_coded
from codec.data import Clip
from codec.discriminator import MelDiscriminator, MelDiscriminatorConfig, draw_windows
from codec.mel import MelSpec, log_mel
from codec.mixing import mix_clips
from codec.refinement import Critics, DecoderRefinement, endpoint_statistics, vq_loss
from codec.refinement_trainer import RefinementTrainer, StageTwo

SIGMA = 1e-5


@pytest.fixture
def codec(model: EntangleCodecForPreTraining) -> EntangleCodecModel:
    return model.codec


def make_critic(seed: int = 0, objective: str = "hinge") -> MelDiscriminator:
    torch.manual_seed(seed)
    numbers = {"mel": {"mean": -6.0, "std": 3.0}, "windows": [8, 16], "hidden_size": 8, "objective": objective}
    return MelDiscriminator(MelDiscriminatorConfig(**numbers)).eval()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(2)
    mask = (torch.arange(20) < torch.tensor([[20], [20], [11]])).long()
    return {"mel": torch.randn(3, 20, 128), "codes": torch.randint(64, (3, 20)), "attention_mask": mask}


def make_trainer(codec: EntangleCodecModel, critics: Critics, folder: Path, **stage: Any) -> RefinementTrainer:
    settings = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", remove_unused_columns=False)
    return RefinementTrainer(DecoderRefinement(codec), args=settings, critics=critics, stage=StageTwo(**stage))


def row_noise(rows: int, frames: int) -> Tensor:
    return torch.stack([torch.randn(frames, 128, generator=torch.Generator().manual_seed(r)) for r in range(rows)])


@pytest.mark.parametrize("objective", ["hinge", "least_squares"])
def test_the_loss_is_eq_13(codec: EntangleCodecModel, batch: dict[str, Tensor], tmp_path: Path, objective: str) -> None:
    """Sum of eq. 9, a constant and the critic's score of `z + v(z, 0)`, put together here from network outputs alone."""
    critic = make_critic(objective=objective)
    stage = {"vq_loss": 0.3, "adversarial_weight": 0.7, "feature_weight": 0.2}
    trainer = make_trainer(codec, Critics(critic), tmp_path, **stage)
    loss = float(trainer.compute_loss(trainer.model.eval(), batch).detach())

    mel, mask = batch["mel"], batch["attention_mask"]
    rows = codec.quantizer.codebook.detach()
    vectors = (rows / rows.norm(dim=1, keepdim=True))[batch["codes"]]
    z, t = row_noise(3, 20), torch.tensor([0.0, 1 / 3, 2 / 3])
    x_t = (1 - (1 - SIGMA) * t[:, None, None]) * z + t[:, None, None] * mel
    with torch.no_grad():
        velocity = codec.decoder(x_t, t, vectors, mask)
        made = z + codec.decoder(z, torch.zeros(3), vectors, mask)
        windows = draw_windows([20, 20, 11], [8, 16], torch.Generator().manual_seed(0))
        real, fake = critic(mel, windows), critic(made, windows)
    valid = mask.bool().numpy()
    flow = np.abs(velocity.numpy() - (mel - (1 - SIGMA) * z).numpy())[valid].mean()
    scores = [s.numpy() for s in fake.scores]
    adversarial = np.mean([-s.mean() if objective == "hinge" else ((s - 1) ** 2).mean() for s in scores])
    pairs = [(a, b) for maps in zip(real.features, fake.features, strict=True) for a, b in zip(*maps, strict=True)]
    features = np.mean([np.abs(a.numpy() - b.numpy()).mean() for a, b in pairs])
    assert loss == pytest.approx(flow + 0.3 + 0.7 * adversarial + 0.2 * features, rel=1e-5)


def test_defaults_are_the_papers_weights() -> None:
    stage = StageTwo(vq_loss=0.5)
    assert (stage.adversarial_weight, stage.feature_weight, stage.discriminator_learning_rate) == (1.0, 0.0, None)
    assert [stage.ramp(step) for step in (0, 2_499, 4_999, 9_999)] == [1 / 5_000, 0.5, 1.0, 1.0]
    assert replace(stage, ramp_steps=0).ramp(0) == 1.0


@pytest.mark.parametrize(("steps", "guidance"), [(1, 0.0), (3, 0.0), (2, 0.5)])
def test_gradients_reach_the_decoder_alone(
    codec: EntangleCodecModel, batch: dict[str, Tensor], tmp_path: Path, steps: int, guidance: float
) -> None:
    codec.config.num_steps, codec.config.guidance_scale = steps, guidance
    critic, witness = make_critic(), make_critic(1)
    trainer = make_trainer(codec, Critics(critic, witness), tmp_path, ramp_steps=1)
    # without the flow loss: what reaches the decoder has come through critic and sampler
    task: DecoderRefinement = trainer.model.train()
    task.flow_loss = lambda *_: torch.zeros(())  # type: ignore[method-assign]
    trainer.compute_loss(task, batch).backward()
    assert all(p.grad is not None and p.grad.any() for n, p in codec.decoder.named_parameters() if "weight" in n)
    others = [part for name, part in codec.named_children() if name != "decoder"]
    assert len(others) == 3  # encoder, quantizer, vocoder
    for part in (*others, critic, witness):
        assert all(p.grad is None and not p.requires_grad for p in part.parameters())
    assert {n.split(".")[0] for n, _ in task.named_parameters()} == {"decoder"}
    assert {n.split(".")[0] for n in task.state_dict()} == {"decoder"}  # checkpoints hold nothing else


@pytest.mark.parametrize(("steps", "guidance"), [(1, 0.0), (2, 0.5)])
def test_the_gradient_equals_finite_differences(
    codec: EntangleCodecModel, batch: dict[str, Tensor], tmp_path: Path, steps: int, guidance: float
) -> None:
    codec.config.num_steps, codec.config.guidance_scale = steps, guidance
    # an untrained prefix without condition is all zeros, where the slope of a norm has no finite difference
    torch.nn.init.normal_(codec.decoder.segment)
    stage = {"adversarial_weight": 5.0, "feature_weight": 1.0}
    trainer = make_trainer(codec, Critics(make_critic(objective="least_squares")), tmp_path, **stage)
    task = trainer.model.eval()
    trainer.compute_loss(task, batch).backward()
    torch.manual_seed(3)
    weights = list(task.parameters())
    length = sum(float(p.grad.square().sum()) for p in weights) ** 0.5
    direction = [p.grad / length + torch.randn_like(p) / 1_000 for p in weights]
    slope = sum(float((p.grad * d).double().sum()) for p, d in zip(weights, direction, strict=True))

    def loss_at(distance: float) -> float:
        with torch.no_grad():
            for p, d in zip(weights, direction, strict=True):
                p.add_(d, alpha=distance)
            value = float(trainer.compute_loss(task, batch).double())
            for p, d in zip(weights, direction, strict=True):
                p.sub_(d, alpha=distance)
        return value

    epsilon = 1e-3
    assert (loss_at(epsilon) - loss_at(-epsilon)) / (2 * epsilon) == pytest.approx(slope, rel=0.01)


@pytest.mark.parametrize(("steps", "guidance"), [(1, 0.0), (4, 0.0), (2, 1.0)])
def test_made_mel_is_what_decode_makes(
    codec: EntangleCodecModel, batch: dict[str, Tensor], steps: int, guidance: float
) -> None:
    codec.config.num_steps, codec.config.guidance_scale = steps, guidance
    task = DecoderRefinement(codec).eval()
    calls: list[tuple[float, float, int]] = []
    codec.decoder.register_forward_pre_hook(
        lambda _, a: calls.append((float(a[1].min()), float(a[1].max()), len(a[0])))
    )
    with torch.no_grad():
        made = task(**batch).made
    sampler = calls[1:]  # the first is the flow loss
    assert [first for first, _, _ in sampler] == [step / steps for step in range(steps)]  # t = 0 first, and once
    assert all(first == last for first, last, _ in sampler)
    assert {rows for _, _, rows in sampler} == {3 if guidance == 0 else 6}
    decoded = codec.decode(batch["codes"][:, None], batch["attention_mask"], seeds=[0, 1, 2], vocode=False).mel
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(made[real], decoded[real].detach())


def test_times_dropout_and_shares_of_a_training_batch(codec: EntangleCodecModel) -> None:
    task = DecoderRefinement(codec, time_zero_share=0.5, sampled_share=0.25).train()
    seen: list[tuple[Tensor, Tensor]] = []
    codec.decoder.forward = lambda x, t, vectors, mask=None: seen.append((t, vectors)) or torch.zeros_like(x)  # type: ignore[assignment,func-returns-value,method-assign]
    torch.manual_seed(0)
    refined = task(torch.randn(2_000, 2, 128), torch.randint(64, (2_000, 2)))
    assert refined.made.shape == (500, 2, 128)
    (t, vectors), (t_sampled, vectors_sampled) = seen
    dropped = ~vectors.flatten(1).any(1)
    assert float(dropped.float().mean()) == pytest.approx(0.1, abs=0.03)  # eq. 12 needs it, "throughout"
    assert float((t == 0).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert float(t[t > 0].mean()) == pytest.approx(0.5, abs=0.04)
    assert not t_sampled.any() and vectors_sampled.flatten(1).any(1).all()  # the critic never sees a dropped condition


def test_vq_loss_is_eq_11(codec: EntangleCodecModel) -> None:
    torch.manual_seed(0)
    mel = torch.randn(30, 128)
    codes = codec.encode(mel[None])["audio_codes"][0, 0]
    h = codec.encode(mel[None])["latents"][0].detach().numpy()
    rows = codec.quantizer.codebook.detach().numpy()
    z_q = (rows / np.linalg.norm(rows, axis=1, keepdims=True))[codes.numpy()]
    loss, agreement = vq_loss(codec, mel, codes)
    assert loss == pytest.approx(1.25 * np.square(h - z_q).sum(1).mean(), rel=1e-5) and agreement == 1
    assert vq_loss(codec, mel, (codes + 1) % 64)[1] == 0


def test_endpoint_statistics_are_over_real_frames(batch: dict[str, Tensor]) -> None:
    mel, mask = batch["mel"], batch["attention_mask"]
    made = 0.5 * mel + 0.25
    made[2, 11:] = 1e4
    found = endpoint_statistics(mel, made, mask)
    true = mel[mask.bool()].numpy()
    other = 0.5 * true + 0.25
    assert float(found["endpoint_l1"]) == pytest.approx(np.abs(other - true).mean(), rel=1e-5)
    assert float(found["std_ratio"]) == pytest.approx(0.5, rel=1e-5)
    assert float(found["mean_shift"]) == pytest.approx(np.abs(other.mean(0) - true.mean(0)).mean(), rel=1e-5)


def test_guards_end_a_run(codec: EntangleCodecModel, tmp_path: Path) -> None:
    limits = {"endpoint_limit": 1.5, "witness_limit": 0.5}
    trainer = make_trainer(codec, Critics(make_critic(), make_critic(1)), tmp_path, **limits)
    first = {"endpoint_l1": 0.4, "critic_margin": 2.0, "witness_margin": 1.0}
    assert trainer.reason_to_stop(first) is None  # nothing to compare with
    trainer.state.log_history = [{"loss": 1.0, **first}]
    assert trainer.reason_to_stop(first | {"critic_margin": 1.0, "witness_margin": 0.5}) is None  # both fall alike
    assert "1.60 apart" in str(trainer.reason_to_stop(first | {"critic_margin": 0.2, "witness_margin": 0.8}))
    assert "over --endpoint_limit 1.5" in str(trainer.reason_to_stop(first | {"endpoint_l1": 0.7}))
    trainer.critic_optimizer = torch.optim.AdamW(make_critic().parameters())
    assert trainer.reason_to_stop(first | {"critic_margin": 0.2, "witness_margin": 0.8}) is None
    trainer.critic_optimizer = None
    trainer.log({"loss": 1.0, **first, "endpoint_l1": 0.7})
    assert trainer.control.should_training_stop and trainer.control.should_save
    assert "endpoint error" in trainer.state.log_history[-1]["stopped"]


def rows_of(spec: MelSpec, folder: Path) -> tuple[Clip, NDArray[np.float32], NDArray[np.int64]]:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000).astype(np.float32)
    write_audio(folder / "a.wav", wave, 24_000)
    return Clip(folder / "a.wav", ""), wave, np.arange(spec.frames(20_000))[None]


def test_crops_are_cut_from_the_clips_own_mel_and_codes(tmp_path: Path) -> None:
    spec = MelSpec(mean=-6.0, std=3.0)
    clip, _, codes = rows_of(spec, tmp_path)
    data = CodedMelCrops([clip], spec, 0.2, seed=1, codes_of=lambda _: codes)
    whole, starts = data.whole(0), set()
    for epoch in range(30):
        data.set_epoch(epoch)
        row = data[0]
        start = int(row["codes"][0])  # a frame's code is its number
        assert row["codes"].tolist() == list(range(start, start + 10))
        assert torch.equal(row["mel"], whole["mel"][start : start + 10])
        starts.add(start)
    assert len(starts) > 10
    # why: at its edges the mel of a crop is of other samples
    cut = log_mel(torch.from_numpy(read_audio(clip.audio, 24_000)[5 * 480 : 15 * 480]), spec)
    assert torch.allclose(cut[1:-1], whole["mel"][6:14], atol=1e-4) and not torch.allclose(cut[0], whole["mel"][5])
    short = CodedMelCrops([clip], spec, 5.0, codes_of=lambda _: codes)[0]
    assert len(short["mel"]) == len(short["codes"]) == codes.shape[1]
    with pytest.raises(CodesError, match=r"a\.wav has 42 frames, but its codes have shape \(1, 41\)"):
        CodedMelCrops([clip], spec, 0.2, codes_of=lambda _: codes[:, 1:])[0]


def test_lists_become_one_and_a_data_set_is_mixed_in() -> None:
    clips = [Clip(Path(f"{n}.wav"), "") for n in range(4)]
    assert mix_clips([clips[:1], clips[1:]]) == clips
    rows = tuple(clips)  # not a list: as a data set that is read row by row
    assert mix_clips([rows]) is rows
    mixed = mix_clips([clips[:1], rows[1:]])
    assert len(mixed) == 4 and set(mixed) == set(clips)


def test_batches_are_masked_only_where_lengths_differ() -> None:
    rows = [{"mel": torch.ones(n, 128), "codes": torch.ones(n, dtype=torch.long)} for n in (3, 5)]
    assert "attention_mask" not in collate_coded([rows[0], rows[0]])
    batch = collate_coded(rows)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch["mel"].shape == (2, 5, 128) and batch["codes"].shape == (2, 5)


@pytest.mark.parametrize("trainable", [False, True])
def test_the_discriminator_learns_only_where_it_is_told_to(
    codec: EntangleCodecModel, batch: dict[str, Tensor], tmp_path: Path, trainable: bool
) -> None:
    critic, witness = make_critic(), make_critic(1)
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    watching = {name: value.clone() for name, value in witness.state_dict().items()}
    fingerprint = EntangleCodec(codec).fingerprint
    settings = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", remove_unused_columns=False, max_steps=3,
        per_device_train_batch_size=3, learning_rate=1e-2, save_strategy="no", logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    rows = [{"mel": batch["mel"][n], "codes": batch["codes"][n]} for n in range(3)]
    trainer = RefinementTrainer(
        DecoderRefinement(codec),
        args=settings,
        train_dataset=rows,
        data_collator=collate_coded,
        critics=Critics(critic, witness),
        stage=StageTwo(ramp_steps=1, discriminator_learning_rate=1e-3 if trainable else None),
    )
    start = codec.decoder.out.weight.detach().clone()
    trainer.train()
    assert not torch.equal(codec.decoder.out.weight, start)
    same = [torch.equal(before[name], value) for name, value in critic.state_dict().items()]
    assert not all(same) if trainable else all(same)
    assert all(torch.equal(watching[name], value) for name, value in witness.state_dict().items())
    assert EntangleCodec(codec).fingerprint == fingerprint
    logged = trainer.state.log_history[0]
    assert ("discriminator_loss" in logged) == trainable
    total = logged["flow_loss"] + logged["vq_loss"] + logged["adversarial_loss"]
    assert logged["loss"] == pytest.approx(total, abs=1e-4)


def test_the_null_condition_is_the_encoders_zero(make_config: Callable[..., Any]) -> None:
    """The same network answers eq. 12's second term in training and in sampling: zeros for the codes' vectors."""
    torch.manual_seed(0)
    codec = EntangleCodecForPreTraining(make_config(guidance_scale=0.5)).codec
    task = DecoderRefinement(codec).eval()
    seen: list[Tensor] = []
    codec.decoder.register_forward_pre_hook(lambda _, a: seen.append(a[2]))
    with torch.no_grad():
        task(torch.randn(2, 5, 128), torch.randint(64, (2, 5)))
    assert seen[1].shape[0] == 4 and seen[1][:2].any() and not seen[1][2:].any()
