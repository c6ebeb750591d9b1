"""Run in a process of its own: load exported folders with the stock libraries alone, and write what they make."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pipeline(job: dict[str, Any]) -> torch.Tensor:
    from diffusers import DiffusionPipeline

    loaded = DiffusionPipeline.from_pretrained(job["folder"])
    loaded.set_progress_bar_config(disable=True)
    if job.get("channels_last"):
        loaded.vae.to(memory_format=torch.channels_last)
    made = loaded(job["prompts"], generator=[seeded(seed) for seed in job["seeds"]], output_type="pt", **job["call"])
    return made.images if hasattr(made, "images") else made.audios


def language(job: dict[str, Any]) -> torch.Tensor:
    import transformers

    model = getattr(transformers, job["kind"]).from_pretrained(job["folder"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["folder"])
    words = tokenizer(job["prompts"], return_tensors="pt", **job["tokens"])
    torch.default_generator.manual_seed(job["seeds"][0])
    return model.generate(**words, **job["call"])


def main(jobs: str, out: str) -> None:
    made = {}
    for name, job in json.loads(Path(jobs).read_text()).items():
        made[name] = (language if "kind" in job else pipeline)(job).detach().float().contiguous()
    save_file(made, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
