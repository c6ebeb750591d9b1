"""Generators that cannot be loaded, through each adapter: each ends in one line that names the folder."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.protocol import UserError
from modalities.audio import stable_audio
from modalities.image import diffusion
from tests import tiny_audio, tiny_pipeline

CPU = torch.device("cpu")
WEIGHTS = Path("vae/diffusion_pytorch_model.safetensors")


@dataclass(frozen=True)
class Adapter:
    """What reads a modality's pipelines, and where a tiny one comes from.

    Attributes:
        load: makes a generator of a folder's name.
        save: writes a tiny pipeline into a folder.
        denoiser: folder of the denoiser.
        vae_key: a tensor of the autoencoder.
        text_key: a tensor of the text encoder.
    """

    load: Callable[[str, torch.device], Any]
    save: Callable[[Path], Path]
    denoiser: str
    vae_key: str
    text_key: str


ADAPTERS = {
    "image": Adapter(
        *(diffusion.load, tiny_pipeline.save_tiny, "unet"), "decoder.conv_in.weight", "final_layer_norm.bias"
    ),
    "audio": Adapter(
        *(stable_audio.load, tiny_audio.save_tiny, "transformer"),
        *("decoder.conv1.weight_v", "encoder.final_layer_norm.weight"),
    ),
}
MODALITIES = pytest.mark.parametrize("modality", ADAPTERS)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pipeline folder of each modality; copy it before writing into it."""
    return {name: adapter.save(tmp_path_factory.mktemp(name)) for name, adapter in ADAPTERS.items()}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read once, at import


def edit(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def tensors(file: str, key: str, change: Callable[[Tensor], Tensor | None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = load_file(folder / file)
        value = change(state.pop(key))
        save_file(state if value is None else state | {key: value.contiguous()}, folder / file, {"format": "pt"})

    return damage


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return damage


def halve(name: str | Path) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: len(raw) // 2])

    return damage


def pickled(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (path,) = (folder / name).glob("*.safetensors")
        torch.save(load_file(path), path.with_suffix(".bin"))
        path.unlink()

    return damage


ENCODER = "text_encoder/model.safetensors"
Damage = tuple[Callable[[Path], Any], str]


def damages(adapter: Adapter) -> dict[str, Damage]:
    """What is done to a folder, and words of the line that follows."""
    vae, text = str(WEIGHTS), "text_encoder"
    return {
        "no folder": (shutil.rmtree, "found no such folder"),
        "no index": (lambda folder: (folder / "model_index.json").unlink(), "expected model_index.json"),
        "index is no JSON": (write("model_index.json", b"{"), "model_index.json is not JSON"),
        "index is no text": (write("model_index.json", b"\xff\xfe\x00"), "model_index.json is not JSON"),
        "index is a list": (write("model_index.json", b"[]"), "expected a vae in model_index.json, found list"),
        "no vae": (edit("model_index.json", lambda parts: parts.pop("vae")), "expected a vae in model_index.json"),
        "vae is null": (edit("model_index.json", lambda parts: parts.update(vae=[None, None])), "cannot be loaded"),
        "unknown pipeline": (edit("model_index.json", lambda parts: parts.update(_class_name="No")), "be loaded"),
        "no vae folder": (lambda folder: shutil.rmtree(folder / "vae"), "expected the folder vae/"),
        "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "expected the folder tokenizer/"),
        "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "expected safetensors in vae/, found no weights"),
        "pickled vae": (pickled("vae"), "found the pickle diffusion_pytorch_model.bin, which is refused"),
        "pickled denoiser": (pickled(adapter.denoiser), "cannot be loaded"),
        "pickled text encoder": (pickled(text), "cannot be loaded"),
        "truncated vae": (halve(WEIGHTS), "cannot be loaded"),
        "truncated text encoder": (halve(ENCODER), "cannot be loaded"),
        "junk": (write(vae, b"junk"), "cannot be loaded"),
        "empty": (write(vae, b""), "cannot be loaded"),
        "broken config": (write("vae/config.json", b"{"), "cannot be loaded"),
        "broken solver": (write("scheduler/scheduler_config.json", b"{"), "cannot be loaded"),
        "wrong shape in the vae": (tensors(vae, adapter.vae_key, lambda w: w[:3]), "size mismatch"),
        "wrong shape in the text encoder": (tensors(ENCODER, adapter.text_key, lambda w: w[:3]), "cannot be loaded"),
        "missing in the vae": (tensors(vae, adapter.vae_key, lambda _: None), adapter.vae_key),
        "missing in the text encoder": (tensors(ENCODER, adapter.text_key, lambda _: None), adapter.text_key),
    }


CASES = [
    pytest.param(name, *damage, id=f"{name}-{kind}")
    for name, adapter in ADAPTERS.items()
    for kind, damage in damages(adapter).items()
]


@pytest.mark.parametrize(("modality", "damage", "words"), CASES)
def test_a_damaged_folder_ends_in_one_line(
    tiny: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    modality: str,
    damage: Callable[[Path], None],
    words: str,
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny[modality], folder)
    damage(folder)
    with pytest.raises(UserError) as caught:
        ADAPTERS[modality].load(str(folder), CPU)
    line = str(caught.value)
    assert line.startswith(f"generator {folder}: ") and words in line and "\n" not in line
    assert capsys.readouterr().err.count("\n") <= 1, "nothing of the libraries' own between the user and the line"


@pytest.mark.parametrize(
    ("modality", "other", "found"),
    [("audio", "image", "StableDiffusionPipeline"), ("image", "audio", "StableAudioPipeline")],
)
def test_the_pipeline_of_another_modality_is_named(
    tiny: dict[str, Path], modality: str, other: str, found: str
) -> None:
    with pytest.raises(UserError) as caught:
        ADAPTERS[modality].load(str(tiny[other]), CPU)
    assert str(caught.value) == f"generator {tiny[other]}: expected a text-to-{modality} pipeline, found {found}"


@MODALITIES
def test_code_in_a_folder_is_not_run(
    tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "evil"
    shutil.copytree(tiny[modality], folder)
    (folder / "vae" / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\nclass Evil: pass\n")
    edit("model_index.json", lambda parts: parts.update(vae=["evil", "Evil"]))(folder)
    with pytest.raises(UserError, match="cannot be loaded"):
        ADAPTERS[modality].load(str(folder), CPU)
    assert not Path("ran").exists()


@MODALITIES
@pytest.mark.parametrize("spec", ["nowhere", "./no/where", "/no/where", "a/b/c"])
def test_what_is_no_hub_id_is_a_missing_folder(modality: str, spec: str) -> None:
    with pytest.raises(UserError, match="expected a diffusers pipeline folder, found no such folder"):
        ADAPTERS[modality].load(spec, CPU)


@MODALITIES
def test_a_hub_id_offline_says_how_to_pass_a_folder(modality: str) -> None:
    with pytest.raises(UserError, match="offline, pass a local folder") as caught:
        ADAPTERS[modality].load("nobody/nothing", CPU)
    assert str(caught.value).startswith("generator nobody/nothing: ") and "\n" not in str(caught.value)


@MODALITIES
def test_loading_leaves_loggers_and_warnings_as_they_were(tiny: dict[str, Path], modality: str) -> None:
    def states() -> list[tuple[list[logging.Handler], int]]:
        return [
            (list(logging.getLogger(n).handlers), logging.getLogger(n).level) for n in ("diffusers", "transformers")
        ]

    before, filters = states(), list(warnings.filters)
    ADAPTERS[modality].load(str(tiny[modality]), CPU)
    assert states() == before and warnings.filters == filters


@MODALITIES
def test_loading_warns_of_nothing(tiny: dict[str, Path], modality: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ADAPTERS[modality].load(str(tiny[modality]), CPU)
    assert [str(warning.message) for warning in told] == []
