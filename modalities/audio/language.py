"""Token language models with a neural codec as GenPrint generators: MusicGen and Bark of transformers.

Copet et al., "Simple and Controllable Music Generation", 2023, arXiv:2306.05284. Both write codes that EnCodec
(Défossez et al., 2022, arXiv:2210.13438) decodes. A latent is what enters its decoder: the sum of the codes' vectors.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.protocol import Clips, UserError
from bench.rng import child, fenced
from modalities.audio import LENGTH, data, material
from modalities.export import with_decoder
from modalities.libraries import noted, tell
from modalities.rounding import as_loaded

CODECS = {"MusicgenForConditionalGeneration": "audio_encoder", "BarkModel": "codec_model"}
"""Where a model keeps its codec."""
BEFORE = ("text_encoder", "enc_to_dec_proj", "decoder", "semantic", "coarse_acoustics", "fine_acoustics")
"""What of a model runs before the codec."""


@dataclass(frozen=True)
class LanguageGenerator:
    """Text to audio by a language model of codes; the fingerprint sits in the codec's decoder.

    Attributes:
        name: hub id or folder name.
        model: a MusicGen or Bark model.
        tokenizer: of its prompts.
        networks: the model by name; it determines the latents, so cached latents are named by it.
        guidance: classifier-free guidance scale, of MusicGen.
        batch: prompts that are sampled, and share their draws, at a time.
        seconds: length of what it makes; what comes out shorter is repeated.
    """

    name: str
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    networks: nn.ModuleDict = field(repr=False, default_factory=nn.ModuleDict)
    guidance: float = 3.0
    batch: int = 8
    seconds: float = 4.0

    @property
    def codec(self) -> Any:
        """The EnCodec model."""
        return getattr(self.model, CODECS[type(self.model).__name__])

    @property
    def decoder(self) -> nn.Module:
        """The public decoder."""
        decoder: nn.Module = self.codec.decoder
        return decoder

    @property
    def rate_hz(self) -> int:
        """Samples per second of what it makes."""
        return int(self.codec.config.sampling_rate)

    @property
    def channels(self) -> int:
        """1 or 2; MusicGen's stereo is two mono channels, decoded one after the other."""
        return int(getattr(self.model.config, "decoder", self.codec.config).audio_channels)

    @property
    def hop(self) -> int:
        """Samples per latent frame."""
        return int(math.prod(self.codec.config.upsampling_ratios))

    @property
    def books(self) -> int:
        """Codebooks that the model writes for one channel."""
        fine = getattr(self.model.config, "fine_acoustics_config", None)
        return int(self.model.decoder.num_codebooks // self.channels if fine is None else fine.n_codes_total)

    @property
    def frames(self) -> int:
        """Latent frames of one sampled item."""
        return math.ceil(self.seconds * self.rate_hz / self.hop)

    @property
    def device(self) -> torch.device:
        """Where the decoder's weights are."""
        return next(self.decoder.parameters()).device

    @torch.no_grad()
    def latents(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """Sample one latent per prompt, (B, channels, D, frames) float32 on the CPU, by the model's own sampler."""
        music, made = hasattr(self.model, "text_encoder"), []
        with noted() as notes, as_loaded(self.networks):
            for start in range(0, len(prompts), step := self.batch if music else 1):
                part = list(prompts[start : start + step])
                seed = child(rng, "latent", start).initial_seed()
                with fenced_on(seed, self.device), entering(self.decoder) as caught:
                    self._music(part) if music else self._speech(part)
                z = torch.stack(caught, dim=1).float().cpu()  # (B, channels, D, T)
                made.append(z.repeat(1, 1, 1, -(-self.frames // z.shape[3]))[..., : self.frames])
        tell(self.name, notes)
        return torch.cat(made)

    def _music(self, prompts: list[str]) -> None:
        words = self.tokenizer(prompts, padding=True, return_tensors="pt").to(self.device)
        tokens = self.frames + self.books - 1  # each codebook is one step behind the one before
        self.model.generate(**words, do_sample=True, guidance_scale=self.guidance, max_new_tokens=tokens)

    def _speech(self, prompts: list[str]) -> None:
        words = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=int(self.model.generation_config.semantic_config["max_input_semantic_length"]),
            truncation=True,
            add_special_tokens=False,
            return_token_type_ids=False,
            return_tensors="pt",
        ).to(self.device)
        self.model.generate(**words)

    def decode(self, decoder: nn.Module, latents: Tensor) -> Tensor:
        """Waveforms (B, channels, T), nominally in [-1, 1], of latents (B, channels, D, frames); differentiable."""
        first = next(decoder.parameters())
        z = latents.to(first.device, first.dtype)
        with trainable_recurrence(), as_loaded(decoder):
            # Channel by channel, so that a batch is one of items: each may carry a code of its own.
            waves = [decoder(channel).float() for channel in z.unbind(1)]  # (B, 1, T); (B, 2, T) where one holds both
        return torch.cat(waves, dim=1)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Latents (B, channels, D, frames) of waveforms (B, channels, T) in [-1, 1], in as many codes as it writes."""
        apart = self.codec.config.audio_channels != x.shape[1]
        parts = (x.flatten(0, 1)[:, None] if apart else x).split(8)
        width = self.codec.config.target_bandwidths[-1]
        made = []
        for part in parts:
            codes = self.codec.quantizer.encode(self.codec.encoder(part.to(self.device)), width)
            made.append(self.codec.quantizer.decode(codes[: self.books]))
        z = torch.cat(made).float().cpu()  # (B · channels, D, frames)
        return z.view(len(x), -1, *z.shape[1:])

    def training_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Codes of public clips, and one in eight as the generator makes them, in windows of what readers hear."""
        heard = min(self.frames, math.ceil(LENGTH / data.RATE_HZ * self.rate_hz / self.hop))
        return material.mixed_latents(self, heard, n, rng)

    def public_pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and waveforms of ``n`` shipped public clips; all of them when ``n`` is more than there are."""
        return material.public_pairs(self, n, rng)

    def reconstruct(self, clips: Clips) -> Clips:
        """Encode and decode with the public codec: the regeneration attack; same rate, channels and length."""
        return material.reconstruct(self, clips)

    def export(self, decoder: nn.Module, folder: Path) -> None:
        """Write a plain model folder with ``decoder`` in the place of the public one."""
        with with_decoder(self.codec, "decoder", decoder):
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def entering(decoder: nn.Module) -> Iterator[list[Tensor]]:
    """What enters ``decoder`` within the context, call by call."""
    caught: list[Tensor] = []
    handle = decoder.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        yield caught
    finally:
        handle.remove()


@contextlib.contextmanager
def fenced_on(seed: int, device: torch.device) -> Iterator[None]:
    """As :func:`bench.rng.fenced`, on the device too: the samplers of transformers take no generator."""
    with fenced(seed):
        if device.type != "cuda":
            yield
            return
        own = torch.cuda.default_generators[device.index or 0]
        state = own.get_state()
        own.manual_seed(seed)
        try:
            yield
        finally:
            own.set_state(state)


@contextlib.contextmanager
def trainable_recurrence() -> Iterator[None]:
    """CuDNN has no backward pass of recurrent layers in evaluation mode; torch's own has."""
    if not torch.is_grad_enabled():
        yield
        return
    with torch.backends.cudnn.flags(enabled=False):
        yield


def load_language(source: str, device: torch.device, options: dict[str, Any]) -> tuple[Any, Any]:
    """A model and its tokenizer, safetensors only, in float32; see :func:`modalities.audio.loading.load`.

    Raises:
        UserError: when there is no such model in ``source``.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(source, **options)
    kinds = [name for name in config.architectures or () if name in CODECS]
    if not kinds:
        raise UserError(f"generator {source}: expected {' or '.join(CODECS)}, found {config.architectures}")
    kind = getattr(transformers, kinds[0])
    model = kind.from_pretrained(source, **options, use_safetensors=True, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
    return model.eval().requires_grad_(False).to(device), tokenizer


def narrow(model: nn.Module, dtype: torch.dtype) -> None:
    """Everything before the codec in another number format, in place."""
    for name in BEFORE:
        if isinstance(part := getattr(model, name, None), nn.Module):
            part.to(dtype)
