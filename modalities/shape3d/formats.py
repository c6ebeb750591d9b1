"""Compare two formats for the embedded generator: ``python -m modalities.shape3d.formats`` after ``make data``.

A grid decoded by convolutions, and Shap-E's: weights of a small field network, projected from latents. Both get the
same data, batches, learning rate and processor time, and latents from an encoder, since those of a text-to-3D generator
have to be predictable. Printed are the IoU of held-out and of learned parts.
"""

from __future__ import annotations

import math
import time
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from bench.metrics.intervals import clustered
from bench.precision import mixed
from bench.rng import fenced, stream
from modalities.shape3d import data
from modalities.shape3d.autoencoder import NOISE, grid_iou, terms
from modalities.shape3d.grid import LATENT_SIDE, GridAutoencoder, GridConfig, GridEncoder
from modalities.shape3d.grids import points
from modalities.shape3d.parts import VARIANTS, Part, every_part
from modalities.shape3d.shap_e import Renderer, decoder_of

BATCH, RATE, WARMUP = 16, 2e-3, 50
NEAR, ANYWHERE = 1024, 512
"""Points of a field that a step looks at: likely ones near surfaces, and others."""
CPU = torch.device("cpu")


class GridFormat(nn.Module):
    """The embedded autoencoder, decoded at every cell."""

    def __init__(self) -> None:
        super().__init__()
        self.model = GridAutoencoder()

    def encode(self, fields: Tensor) -> Tensor:
        """Latents of fields."""
        z: Tensor = self.model.encoder(fields)
        return z

    def decode(self, z: Tensor) -> Tensor:
        """Fields (B, 4, 32, 32, 32)."""
        fields: Tensor = self.model.decoder(z).float()
        return fields

    def loss(self, z: Tensor, fields: Tensor, rng: torch.Generator) -> Tensor:
        """Of all cells."""
        return terms(self.decode(z), fields, z.float())["loss"]


class ShapEFormat(nn.Module):
    """A tiny `ShapERenderer` with an encoder to as many rows as it has, decoded at some points."""

    def __init__(self, width: int = 48, rows: int = 16) -> None:
        super().__init__()
        from diffusers.pipelines.shap_e.renderer import ShapERenderer

        shapes = ((width, 93), *[(width, width)] * 3)
        made = ShapERenderer(
            param_shapes=shapes, d_latent=rows, d_hidden=width, n_output=12, background=(0.1, 0.1, 0.1)
        )
        self.renderer = decoder_of(made)
        self.encoder = GridEncoder(GridConfig())
        self.widen = nn.Linear(GridConfig().latent * LATENT_SIDE**3, 4 * width * rows)
        self.rows = rows

    def encode(self, fields: Tensor) -> Tensor:
        """Latents (B, rows of all matrices, width of a row)."""
        z: Tensor = self.widen(self.encoder(fields).flatten(1)).view(len(fields), -1, self.rows)
        return z

    def _values(self, z: Tensor, places: Tensor) -> Tensor:
        renderer = Renderer(self.renderer)
        return renderer.values(renderer.matrices(z.float()), places).float().mT

    def decode(self, z: Tensor) -> Tensor:
        """Fields (B, 4, 32, 32, 32)."""
        return self._values(z, points()).reshape(len(z), 4, *[32] * 3)

    def loss(self, z: Tensor, fields: Tensor, rng: torch.Generator) -> Tensor:
        """Of some cells, most of them near surfaces, for all fields the same."""
        flat = fields.flatten(2)
        likely = (flat[:, 0].abs() < 0.5).float().sum(0) + 1e-3
        chosen = torch.multinomial(likely, NEAR, generator=rng)
        chosen = torch.cat([chosen, torch.randint(flat.shape[2], (ANYWHERE,), generator=rng)])
        found, target = self._values(z, points()[chosen]), flat[..., chosen]
        # tanh bounds the distance; its argument tells sides apart without bound, as a grid's distance does
        found = torch.cat([found[:, :1].clamp(-0.999, 0.999).atanh(), found[:, 1:]], 1)
        return terms(found[..., None, None], target[..., None, None], z.float())["loss"]


def trained(model: Any, seconds: float, seed: int) -> tuple[Any, int]:
    """Train for so many seconds of processor time.

    Returns:
        The model with its weights averaged, and the number of steps.
    """
    rows, step, began = data.rows_of(("fit", "prompts")), 0, time.process_time()
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-3, betas=(0.9, 0.99), fused=True)
    while (done := (time.process_time() - began) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARMUP) * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))
        rng = stream(seed, "3d formats", step)
        drawn = [rows[i] for i in torch.randint(len(rows), (BATCH,), generator=rng).tolist()]
        fields = data.fields(drawn, torch.randint(VARIANTS, (BATCH,), generator=rng).tolist())
        with mixed(CPU):
            z = model.encode(fields)
            z = z + NOISE * z.detach().std() * torch.randn(z.shape, generator=rng)
            loss = model.loss(z, fields, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        averaged.update_parameters(model)
        step += 1
    return averaged.module, step


@torch.inference_mode()
def judged(model: Any, fields: Tensor, parts: list[Part], name: str) -> str:
    """IoU at 32³, with its interval by mould."""
    restored = torch.cat([model.decode(model.encode(some)) for some in fields.split(BATCH)])
    found = clustered(grid_iou(restored, fields).numpy(), [part.mould for part in parts], rng=stream(0, name))
    return f"{found.mean:.3f} [{found.lo:.3f}, {found.hi:.3f}] (n = {len(fields)})"


def main(
    seconds: Annotated[float, typer.Option(help="Processor time of each training.")] = 120.0,
    seed: Annotated[int, typer.Option(help="Determines everything that is random.")] = 0,
) -> None:
    """Train both formats for the same time and print how well they restore parts."""
    torch.set_num_threads(1)
    fit = data.rows_of(("fit", "prompts"))[::30]
    learned = data.fields(fit, [0] * len(fit)), [every_part()[row] for row in fit]
    fields, chosen = data.shipped("reference")
    held_out = fields[::3], [part for part, _ in chosen][::3]
    for kind in (GridFormat, ShapEFormat):
        with fenced(seed):
            model = kind()
        model, steps = trained(model, seconds, seed)
        scores = (
            f"{name} {judged(model, *each, name)}" for name, each in (("held out", held_out), ("learned", learned))
        )
        print(f"{kind.__name__}: {steps} steps, IoU {', '.join(scores)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
