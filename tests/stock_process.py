"""Run in a process of its own: load exported folders with the stock libraries alone, and write what they make."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Job = dict[str, Any]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pipeline(job: Job) -> torch.Tensor:
    from diffusers import DiffusionPipeline

    loaded = DiffusionPipeline.from_pretrained(job["folder"])
    loaded.set_progress_bar_config(disable=True)
    seeds = [seeded(seed) for seed in job["seeds"]]
    made = loaded(job["prompts"], generator=seeds, output_type="pt", **job["call"])
    return made.images if hasattr(made, "images") else made.audios


def language(job: Job) -> torch.Tensor:
    import transformers

    model = getattr(transformers, job["kind"]).from_pretrained(job["folder"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["folder"])
    words = tokenizer(job["prompts"], return_tensors="pt", **job["tokens"])
    torch.default_generator.manual_seed(job["seeds"][0])
    return model.generate(**words, **job["call"])


def program(job: Job) -> torch.Tensor:
    return torch.export.load(Path(job["folder"]) / "model.pt2").module()(noise(job))


def network(job: Job) -> torch.Tensor:
    """A class of the user's own, with the exported tensors."""
    made = getattr(source(job["file"]), job["class"])().eval()
    made.load_state_dict(load_file(Path(job["folder"]) / "model.safetensors"))
    return made(noise(job))


def audiocraft(job: Job) -> torch.Tensor:
    model = getattr(source(job["file"]), job["class"])()
    model.compression_model.eval()
    model.compression_model.load_state_dict(load_file(Path(job["folder"]) / "compression_model.safetensors"))
    model.set_generation_params(duration=job["seconds"])
    torch.default_generator.manual_seed(job["seeds"][0])
    return model.generate(job["prompts"])


def shap_e(job: Job) -> torch.Tensor:
    """Distances and colours at points, as ``decode_to_mesh`` of diffusers asks for them."""
    from diffusers import DiffusionPipeline

    loaded = DiffusionPipeline.from_pretrained(job["folder"])
    loaded.set_progress_bar_config(disable=True)
    seeds, fields = [seeded(seed) for seed in job["seeds"]], []
    latents = loaded(job["prompts"], generator=seeds, output_type="latent", **job["call"]).images
    renderer = loaded.shap_e_renderer
    for latent in latents:
        projected = renderer.params_proj(latent[None])
        for name, value in renderer.mlp.state_dict().items():
            if f"nerstf.{name}" in projected:
                value.copy_(projected[f"nerstf.{name}"].squeeze(0))
        parts = []
        for some in places(job)[None].split(4096, 1):
            found = renderer.mlp(position=some, direction=None, ts=None, nerf_level="fine", rendering_mode="stf")
            parts.append(torch.cat([found.signed_distance, found.channels], -1))
        fields.append(torch.cat(parts, 1))
    return torch.cat(fields).mT


def asked(job: Job) -> torch.Tensor:
    """Values of a network of latents and points, of a class of the user's own."""
    made = getattr(source(job["file"]), job["class"])().eval()
    made.load_state_dict(load_file(Path(job["folder"]) / "model.safetensors"))
    ask, latents = getattr(made, job["method"]), noise(job)
    parts = [ask(latents, some.expand(len(latents), -1, -1)) for some in places(job).split(job["chunk"])]
    return torch.cat(parts, 1).mT


def program_of_latents(job: Job) -> torch.Tensor:
    return torch.export.load(Path(job["folder"]) / "decoder.pt2").module()(torch.tensor(job["latents"]))


def places(job: Job) -> torch.Tensor:
    """Centres of the cells of a grid over the cube [-1, 1]³, x slowest."""
    axis = (torch.arange(job["side"]) + 0.5) * (2 / job["side"]) - 1
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3)


def noise(job: Job) -> torch.Tensor:
    return torch.stack([torch.randn(job["shape"], generator=seeded(seed)) for seed in job["seeds"]])


def source(file: str) -> Any:
    spec = importlib.util.spec_from_file_location("outside", file)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


LIBRARIES = {
    "diffusers": pipeline,
    "transformers": language,
    "torch.export": program,
    "torch": network,
    "audiocraft": audiocraft,
    "shap-e": shap_e,
    "points": asked,
    "latents": program_of_latents,
}


@torch.no_grad()
def main(jobs: str, out: str) -> None:
    made = {}
    for name, job in json.loads(Path(jobs).read_text()).items():
        made[name] = LIBRARIES[job["library"]](job).detach().float().contiguous()
    assert "bench" not in sys.modules, "a stock process knows nothing of GenPrint"
    save_file(made, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
