"""Measure the embedded generator: ``python -m modalities.image.evaluate`` after ``make data MODALITY=image``.

Reconstruction of held-out pictures, agreement of samples with their prompts, time to sample; and a contact sheet.
Writes ``docs/image_generator.json`` and ``docs/image_contact_sheet.png``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from bench.metrics.intervals import Interval, clustered
from bench.rng import stream
from modalities.image import Image, data
from modalities.image.diffusion import DiffusionGenerator, load
from modalities.image.perceptual import lpips, mobilenet

DOCS = Path("docs")
SEED = 0


def reconstruction(generator: DiffusionGenerator) -> dict[str, Interval]:
    """PSNR in dB and LPIPS-VGG of the autoencoder on every reference picture, clustered by concept."""
    real = data.reference_images()[0].float() / 255
    restored = generator.reconstruct(real)
    psnr = -10 * (real - restored).square().flatten(1).mean(1).log10()
    apart = torch.cat([lpips("vgg")(a, b) for a, b in zip(real.split(32), restored.split(32), strict=True)])
    concept = torch.arange(len(real)) // len(data.STYLES)
    return {
        "psnr_db": clustered(psnr.numpy(), concept.numpy(), rng=stream(SEED, "psnr")),
        "lpips_vgg": clustered(apart.numpy(), concept.numpy(), rng=stream(SEED, "lpips")),
    }


def alignment(generator: DiffusionGenerator, splits: tuple[str, ...], count: int) -> tuple[Interval, int]:
    """Share of samples whose prompt's concept is among the 10 nearest of all concepts in the same style.

    Nearness is the cosine of standardised MobileNetV2 features between the sample and the real picture of each concept.

    Returns:
        The share with its interval, clustered by concept, and the number of concepts.
    """
    images, codes, styles = data.full_set()
    real = _features(images)
    mean, deviation = real.mean(0), real.std(0) + 1e-3
    real = F.normalize((real - mean) / deviation, dim=1)
    split = {concept.code: concept for concept in data.concepts()}
    rows = [i for i, code in enumerate(codes) if split[code].split in splits]
    order = torch.randperm(len(rows), generator=stream(SEED, "alignment", splits))[:count]
    chosen = [rows[i] for i in order.tolist()]
    prompts = [split[codes[i]].caption(styles[i]) for i in chosen]
    samples = _sample(generator, prompts, stream(SEED, "alignment latents", splits))
    found = F.normalize((_features(samples) - mean) / deviation, dim=1)
    hits = []
    for feature, row in zip(found, chosen, strict=True):
        same = [i for i, style in enumerate(styles) if style == styles[row]]
        nearness = real[same] @ feature
        own = nearness[same.index(row)]
        hits.append(float((nearness > own).sum() < 10))
    names = sorted({codes[i] for i in chosen})
    users = [names.index(codes[i]) for i in chosen]
    return clustered(hits, users, rng=stream(SEED, "interval")), len(set(codes))


def _features(content: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([mobilenet()(part.float() / 255) for part in content.split(64)])


def _sample(generator: DiffusionGenerator, prompts: list[str], rng: torch.Generator) -> Tensor:
    latents = generator.latents(prompts, rng)
    with torch.inference_mode():
        fields = torch.cat([generator.decode(generator.decoder, part) for part in latents.split(64)])
    released: Tensor = Image().release(fields)
    return released


def contact_sheet(generator: DiffusionGenerator, path: Path) -> None:
    """Draw 64 samples with their captions: the first benchmark prompts of a seed, not a selection."""
    prompts = Image().prompts(64, stream(SEED, "sheet"))
    samples = _sample(generator, prompts, stream(SEED, "sheet latents"))
    figure = Figure(figsize=(12, 16), dpi=90)
    for index, (caption, picture) in enumerate(zip(prompts, samples, strict=True)):
        axes = figure.add_subplot(8, 8, index + 1)
        axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(_wrapped(caption), fontsize=7)
    figure.tight_layout(pad=0.8, h_pad=1.5)
    figure.savefig(path, metadata={"Software": None})


def _wrapped(caption: str) -> str:
    style, _, words = caption.partition(" of ")
    lines, line = [style], ""
    for word in words.split():
        if len(line) + len(word) > 22:
            lines, line = [*lines, line], word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line][:3])


def main() -> None:
    """Measure everything, print it, and write it under ``docs``."""
    generator = load(None, torch.device("cpu"))
    report: dict[str, object] = {"torch_threads": torch.get_num_threads()}
    for name, interval in reconstruction(generator).items():
        report[f"reconstruction_{name}"] = interval._asdict() | {"n": 606}
    for name, splits in (("learned", ("fit", "prompts")), ("held_out", ("reference",))):
        share, concepts = alignment(generator, splits, 500)
        report[f"alignment_{name}_top10"] = share._asdict() | {"n": 500, "concepts": concepts, "chance": 10 / concepts}
    began = time.perf_counter()
    _sample(generator, Image().prompts(64, stream(SEED, "time")), stream(SEED, "time latents"))
    report["seconds_for_64_samples"] = round(time.perf_counter() - began, 2)
    report["parameters"] = sum(p.numel() for p in generator.networks.parameters())
    DOCS.mkdir(exist_ok=True)
    contact_sheet(generator, DOCS / "image_contact_sheet.png")
    text = json.dumps(report, indent=2)
    (DOCS / "image_generator.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
