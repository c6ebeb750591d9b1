"""Training of the embedded text-to-audio generator: the latent space, and a denoiser told what its pipeline says."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableAudioPipeline
from torch import Tensor, nn

from bench.rng import fenced, stream
from modalities.audio import autoencoder, data, denoiser, scout, text
from modalities.audio.denoiser import FRAMES, ROUNDS, Conditioned
from modalities.audio.scout import CHANNELS, HOP, Code, Corrected, Scout, lapped, relative_error, unlapped
from modalities.training import Loop, Schedule

CLIPS = data.shipped("fit")[0][:6]


def test_the_lapped_transform_is_inverted_and_keeps_energy() -> None:
    x = CLIPS.float() / 32768
    c = lapped(x)
    assert c.shape == (6, HOP, data.LENGTH // HOP)
    assert (unlapped(c) - x)[..., HOP // 2 : -HOP // 2].abs().max() < 1e-4
    inner = torch.zeros(1, 1, 8 * HOP)
    inner[..., 3 * HOP : 5 * HOP] = torch.randn(2 * HOP, generator=stream(0))
    assert float(lapped(inner).square().sum()) == pytest.approx(float(inner.square().sum()), rel=1e-5)


def test_a_tone_falls_into_the_bin_of_its_frequency() -> None:
    time = torch.arange(data.LENGTH) / data.RATE_HZ
    for hz in (500.0, 3000.0):
        c = lapped((2 * math.pi * hz * time).sin()[None, None]).square().mean((0, 2))
        assert int(c.argmax()) in {int(hz / 31.25) - 1, int(hz / 31.25)}, "a bin is 31.25 Hz wide"


def components() -> Tensor:
    return scout._components(CLIPS)


@torch.no_grad()
def test_the_scout_starts_as_the_best_linear_code() -> None:
    """Corrections scaled to nothing, what is left is the projection on orthonormal leading components."""
    basis = components()
    assert torch.allclose(basis.T @ basis, torch.eye(CHANNELS), atol=1e-5)
    with fenced(0):
        model = Scout(basis)
    for part in (model.encoder, model.decoder):
        nn.init.zeros_(part.network[-1].matrix)
    x = CLIPS.float() / 32768
    z, frames = model.encode(x), lapped(x)
    assert z.shape == (6, CHANNELS, FRAMES) and torch.allclose(z, basis.T @ frames, atol=1e-5)
    left = (lapped(model.decode(z)) - frames).square().sum() / frames.square().sum()
    drawn = torch.linalg.qr(torch.randn(HOP, CHANNELS, generator=stream(0))).Q
    assert float(left) < float((drawn @ (drawn.T @ frames) - frames).square().sum() / frames.square().sum()) / 2


@torch.no_grad()
def test_a_corrected_map_scales_with_its_input() -> None:
    with fenced(0):
        part = Corrected(components().T.contiguous(), 1)
    x = lapped(CLIPS[:2].float() / 32768)
    for factor in (0.5, 4.0):
        assert torch.allclose(part(factor * x), factor * part(x), rtol=2e-3, atol=2e-4)
    assert float(part(torch.zeros_like(x)).abs().max()) < 1e-3, "silence is coded as nothing"


def test_a_code_has_one_scale() -> None:
    with fenced(0):
        plain = Code(Scout(components()), torch.ones(CHANNELS, 1))
    x = CLIPS.float() / 32768
    deviation = plain(x).std((0, 2))[:, None]
    assert torch.allclose(Code(plain.scout, deviation)(x).std((0, 2)), torch.ones(CHANNELS), atol=1e-3)


def test_the_encoder_learns_the_code(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """On one piece, over and over; the error of its mean falls, and its spread stays finite."""
    piece = CLIPS[:1, :, :2048].float() / 32768
    monkeypatch.setattr(autoencoder, "ENCODER", Schedule(steps=30, batch=1, rate=2e-3, warmup=5, ema=0.5))
    monkeypatch.setattr(autoencoder, "CROP", 2048)
    monkeypatch.setattr(autoencoder, "crops", lambda count, rng: piece)
    monkeypatch.setattr(autoencoder.data, "shipped", lambda split: (CLIPS[:1, :, :2048], []))
    with fenced(0):
        plain, fresh = Code(Scout(components()), torch.ones(CHANNELS, 1)), autoencoder.build().encoder
    code = Code(plain.scout, plain(piece).std((0, 2))[:, None])
    trained = autoencoder.train_encoder(0, torch.device("cpu"), code)
    x = piece[..., :1024]
    with torch.no_grad():
        errors = [float(relative_error(net(x).chunk(2, 1)[0], code(x), 1e-4)) for net in (fresh, trained)]
        assert bool(trained(x).isfinite().all())
    assert errors[1] < 0.5 * errors[0] and not any(p.requires_grad for p in trained.parameters())


def test_the_parts_fit_together_and_are_small() -> None:
    with fenced(0):
        vae, transformer = autoencoder.build(), denoiser.build()
        encoder, projection = text.build_encoder(text.build_tokenizer()), text.build_projection()
    parts: tuple[nn.Module, ...] = (vae, transformer, encoder, projection)
    assert sum(p.numel() for part in parts for p in part.parameters()) <= 12e6
    assert vae.hop_length == HOP and transformer.config.sample_size * HOP == data.LENGTH
    with torch.no_grad():
        assert vae.decode(torch.zeros(1, CHANNELS, 8)).sample.shape == (1, 1, 8 * HOP)
        assert vae.encode(torch.zeros(1, 1, 8 * HOP)).latent_dist.mean.shape == (1, CHANNELS, 8)
    assert ROUNDS[-1].frames == FRAMES, "the last round is on whole clips"


@pytest.mark.parametrize("heard", [0.0, 1.0])
def test_the_denoiser_is_trained_on_what_the_pipeline_will_tell_it(heard: float) -> None:
    """Every argument of the network, caught in a run of the pipeline, is the one of training at that noise level."""
    tokenizer = text.build_tokenizer()
    with fenced(0):
        model = Conditioned(denoiser.build(), text.build_encoder(tokenizer), text.build_projection()).eval()
        vae = autoencoder.build().eval()
    pipeline = StableAudioPipeline(
        vae, model.encoder, model.projection, tokenizer, model.transformer, denoiser.solver()
    )
    pipeline.set_progress_bar_config(disable=True)
    calls: list[dict[str, Any]] = []
    given = torch.randn(2, CHANNELS, FRAMES, generator=stream(0))
    captions = ["soft banjo playing C4, short", "loud grand piano playing D3, long"]

    def catch(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.append({"x": arguments[0], "time": arguments[1], **named})

    handle = model.transformer.register_forward_pre_hook(catch, with_kwargs=True)
    guided = {"guidance_scale": 2.0 if heard == 0 else 1.0}
    pipeline(captions, num_inference_steps=2, latents=given, output_type="latent", **guided)
    sigma = pipeline.scheduler.sigmas[0].expand(2)
    with torch.no_grad():
        start = given * pipeline.scheduler.init_noise_sigma
        ids, mask = text.tokens(tokenizer, captions)
        model(start, sigma, ids, mask, torch.full((2,), heard))
    handle.remove()
    theirs, ours = calls[0], calls[-1]
    rows = slice(0, 2)  # with guidance, the half without a prompt comes first
    assert torch.allclose(theirs["x"][rows], ours["x"], atol=1e-5)
    assert torch.allclose(theirs["time"].expand(2), ours["time"], atol=1e-5)
    for name in ("encoder_hidden_states", "global_hidden_states"):
        assert torch.allclose(theirs[name][rows], ours[name], atol=1e-5), name
    for one, other in zip(theirs["rotary_embedding"], ours["rotary_embedding"], strict=True):
        assert torch.equal(one, other)


def test_the_solver_inverts_the_training_target() -> None:
    """A network that answers with the exact velocity gives the clean latent back at once."""
    solver = denoiser.solver()
    z, noise = (torch.randn(1, CHANNELS, 4, generator=stream(0, name)) for name in ("z", "noise"))
    for sigma in (0.01, 1.0, 50.0):
        velocity = (noise - sigma * z) / math.sqrt(1 + sigma**2)
        restored = solver.precondition_outputs(z + sigma * noise, velocity, torch.tensor(sigma))
        assert torch.allclose(restored, z, atol=1e-4)


class Line(nn.Module):
    """A matrix and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.table = nn.Linear(4, 3), nn.Embedding(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.matrix(x + self.table.weight.sum(0))
        return y


@pytest.mark.parametrize("muon_rate", [0.0, 0.1])
def test_a_loop_learns_resumes_and_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, muon_rate: float) -> None:
    monkeypatch.setattr("modalities.training.cache_folder", lambda: tmp_path)
    schedule = Schedule(60, batch=8, rate=0.2, warmup=5, ema=0.8, muon_rate=muon_rate)

    def trained(stop: int | None) -> Line:
        with fenced(0):
            model = Line()
            truth = torch.randn(4, 3)

        def loss(step: int) -> dict[str, Tensor]:
            if step == stop:
                raise KeyboardInterrupt
            x = torch.randn(8, 4, generator=stream(0, step))
            return {"loss": (model(x) - x @ truth).square().mean()}

        Loop(f"line{muon_rate}", schedule, model, loss, lambda _: {}, every=20).run()
        return model

    with pytest.raises(KeyboardInterrupt):
        trained(stop=45)
    resumed = trained(stop=None)
    log = (tmp_path / "training" / f"line{muon_rate}.csv").read_text()
    rows = list(csv.DictReader(log.splitlines()))
    assert [row["step"] for row in rows] == ["20", "40", "60"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"]) / 3
    for path in (tmp_path / "training").iterdir():
        path.unlink()
    whole = trained(stop=None)
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), "an interruption changes nothing"
