"""Train the embedded generator's autoencoder: `AutoencoderOobleck`, 16 kHz mono to 32 numbers every 16 ms and back.

The architecture of Evans et al., "Stable Audio Open", 2024, arXiv:2407.14358: snake activations (Ziyin et al.,
arXiv:2006.08195) and weight normalisation. The latent space is fixed beforehand (:mod:`modalities.audio.scout`); the
decoder learns to invert it by multi-resolution STFT distance (Yamamoto et al., "Parallel WaveGAN", ICASSP 2020,
arXiv:1910.11480), a mel distance and the waveform itself, the encoder by relative error. No discriminator.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderOobleck
from torch import Tensor, nn
from torch.nn import functional as F

from bench.precision import mixed
from bench.rng import fenced, stream
from modalities.audio import data
from modalities.audio.denoiser import FRAMES, latents_of
from modalities.audio.scout import CHANNELS, CROP, HOP, Code, crops, relative_error
from modalities.audio.spectra import mel_distance, stft_distance
from modalities.training import Loop, Schedule

DECODER = {
    "audio_decoder": Schedule(steps=2200, batch=8, rate=2e-3, warmup=100, ema=0.998, weight_decay=1e-3),
    "audio_decoder_exact": Schedule(steps=3000, batch=8, rate=1e-3, warmup=50, ema=0.999, weight_decay=1e-3),
}
"""Two rounds. The second in single precision: half precision leaves noise of its own in quiet places."""
ENCODER = Schedule(steps=800, batch=8, rate=4e-4, warmup=50, ema=0.99, weight_decay=1e-3)
SILENT = 1e-4
"""Energy of latents, of deviation 1 over all clips, that stand for silence."""
WINDOW = 64
"""Latent frames that the decoder restores at a time in training: half a clip."""
NOISE = 0.05
"""Deviation of the noise on the latents in training: about what a denoiser leaves over."""


def build() -> AutoencoderOobleck:
    """The untrained autoencoder; even strides, since odd ones lose samples.

    The widest stride comes first, because activations at the full rate take most of the time of every fingerprint
    experiment. The encoder's width is what diffusers ties to the latent channels: its last layer holds mean and scale.
    """
    return AutoencoderOobleck(
        encoder_hidden_size=2 * CHANNELS,
        downsampling_ratios=[8, 8, 4],
        channel_multiples=[2, 4, 8],
        decoder_channels=16,
        decoder_input_channels=CHANNELS,
        audio_channels=1,
        sampling_rate=data.RATE_HZ,
    )


def train_decoder(seed: int, device: torch.device, code: Code) -> nn.Module:
    """Train the decoder, or finish a training that was interrupted; returns it averaged (EMA), in eval mode."""
    with fenced(seed):
        decoder: nn.Module = build().decoder.to(device)
    latents = latents_of(code, device)
    for name, schedule in DECODER.items():
        _train_decoder_round(name, schedule, decoder, (latents, code), seed)
    return decoder.eval().requires_grad_(False)


def _train_decoder_round(
    name: str, schedule: Schedule, decoder: nn.Module, made: tuple[Tensor, Code], seed: int
) -> None:
    """Train on the latents that were ``made`` of the training clips, and validate by the code that made them."""
    (latents, code), device = made, next(decoder.parameters()).device
    rows = data.training_rows(("fit", "prompts"))
    clips, _ = data.full_set()

    def loss(step: int) -> dict[str, Tensor]:
        rng = stream(seed, name, step)
        drawn = torch.randint(len(rows), (schedule.batch,), generator=rng).tolist()
        place = torch.rand((), generator=rng)  # mostly from the start, where notes differ most
        start = 0 if place < 0.6 else int((place - 0.6) / 0.4 * (FRAMES - WINDOW))
        z = torch.stack([latents[row, :, start : start + WINDOW] for row in drawn])
        x = torch.stack([clips[rows[row], :, start * HOP : (start + WINDOW) * HOP] for row in drawn])
        x = x.float().to(device) / 32768
        noise = NOISE * torch.randn(z.shape, generator=rng).to(device)
        with mixed(device, enabled=not name.endswith("exact")):
            restored = decoder(z + noise).float()
        spectral, mel = stft_distance(x[:, 0], restored[:, 0]).mean(), mel_distance(x[:, 0], restored[:, 0]).mean()
        waveform = (relative_error(restored, x) + 0.003).log().mean()
        return {"loss": spectral + 0.5 * mel + 0.3 * waveform, "stft": spectral, "mel": mel, "waveform": waveform}

    def validate(averaged: nn.Module) -> dict[str, float]:
        x = data.shipped("reference")[0][::16].float().to(device) / 32768
        with torch.no_grad():
            restored = torch.cat([averaged(z) for z in code(x).split(8)])
        ratio = -10 * relative_error(restored, x).log10()
        return {
            "held_out_snr_db": float(ratio.mean()),
            "held_out_stft": float(stft_distance(x[:, 0], restored[:, 0]).mean()),
        }

    Loop(name, schedule, decoder, loss, validate, every=100).run()


def train_encoder(seed: int, device: torch.device, code: Code) -> nn.Module:
    """Train the encoder to the code; returns it averaged (EMA), in eval mode.

    Its mean learns by the error relative to the code, its spread by Gaussian likelihood around that mean. Likelihood
    alone can diverge: a spread that is small too early makes every error enormous.
    """
    with fenced(seed):
        encoder: nn.Module = build().encoder.to(device)

    def loss(step: int) -> dict[str, Tensor]:
        rng = stream(seed, "audio encoder", step)
        x = crops(ENCODER.batch, rng).to(device)
        first = int(torch.randint(2, (), generator=rng)) * CROP // 2  # half of a piece: most of the time is its length
        x = x[..., first : first + CROP // 2]
        with mixed(device):
            mean, scale = encoder(x).float().chunk(2, 1)
        exact, spread = code(x), F.softplus(scale) + 1e-4
        error = (relative_error(mean, exact, SILENT) + 0.003).log().mean()
        likelihood = F.gaussian_nll_loss(mean.detach(), exact, spread.square().clamp_min(1e-4))
        return {"loss": error + 0.1 * likelihood, "error": error, "likelihood": likelihood}

    def validate(averaged: nn.Module) -> dict[str, float]:
        x = data.shipped("reference")[0][::32].float().to(device) / 32768
        with torch.no_grad(), mixed(device):
            mean = averaged(x).float().chunk(2, 1)[0]
        return {"held_out_error_db": float(10 * relative_error(mean, code(x), SILENT).log10().mean())}

    Loop("audio_encoder", ENCODER, encoder, loss, validate, every=100).run()
    return encoder.eval().requires_grad_(False)
