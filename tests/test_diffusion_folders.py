"""Generators that cannot be loaded: each ends in one line that names the folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.protocol import UserError
from modalities.image.diffusion import load
from tests.tiny_pipeline import save_tiny

CPU = torch.device("cpu")
WEIGHTS = Path("vae/diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder; copy it before writing into it."""
    return save_tiny(tmp_path_factory.mktemp("pipelines"))


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
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "found no such folder"),
    "no index": (lambda folder: (folder / "model_index.json").unlink(), "expected model_index.json"),
    "index is no JSON": (write("model_index.json", b"{"), "model_index.json is not JSON"),
    "index is no text": (write("model_index.json", b"\xff\xfe\x00"), "model_index.json is not JSON"),
    "index is a list": (write("model_index.json", b"[]"), "expected a vae in model_index.json, found list"),
    "no vae": (edit("model_index.json", lambda parts: parts.pop("vae")), "expected a vae in model_index.json"),
    "vae is null": (edit("model_index.json", lambda parts: parts.update(vae=[None, None])), "cannot be loaded"),
    "unknown pipeline": (edit("model_index.json", lambda parts: parts.update(_class_name="No")), "cannot be loaded"),
    "no vae folder": (lambda folder: shutil.rmtree(folder / "vae"), "expected the folder vae/"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer"), "expected the folder tokenizer/"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "expected safetensors in vae/, found no weights"),
    "pickled vae": (pickled("vae"), "found the pickle diffusion_pytorch_model.bin, which is refused"),
    "pickled unet": (pickled("unet"), "cannot be loaded"),
    "pickled text encoder": (pickled("text_encoder"), "cannot be loaded"),
    "truncated vae": (halve(WEIGHTS), "cannot be loaded"),
    "truncated text encoder": (halve(ENCODER), "cannot be loaded"),
    "junk": (write(str(WEIGHTS), b"junk"), "cannot be loaded"),
    "empty": (write(str(WEIGHTS), b""), "cannot be loaded"),
    "broken config": (write("vae/config.json", b"{"), "cannot be loaded"),
    "wrong shape in the vae": (tensors(str(WEIGHTS), "decoder.conv_in.weight", lambda w: w[:3]), "size mismatch"),
    "wrong shape in the text encoder": (tensors(ENCODER, "final_layer_norm.bias", lambda w: w[:3]), "cannot be loaded"),
    "missing in the vae": (tensors(str(WEIGHTS), "decoder.conv_in.weight", lambda _: None), "decoder.conv_in.weight"),
    "missing in the text encoder": (tensors(ENCODER, "final_layer_norm.bias", lambda _: None), "final_layer_norm.bias"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_folder_ends_in_one_line(
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    words: str,
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny, folder)
    damage(folder)
    with pytest.raises(UserError) as caught:
        load(str(folder), CPU)
    line = str(caught.value)
    assert line.startswith(f"generator {folder}: ") and words in line and "\n" not in line
    assert capsys.readouterr().err.count("\n") <= 1, "nothing of the libraries' own between the user and the line"


def test_code_in_a_folder_is_not_run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "evil"
    shutil.copytree(tiny, folder)
    (folder / "vae" / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\nclass Evil: pass\n")
    edit("model_index.json", lambda parts: parts.update(vae=["evil", "Evil"]))(folder)
    with pytest.raises(UserError, match="cannot be loaded"):
        load(str(folder), CPU)
    assert not Path("ran").exists()


@pytest.mark.parametrize("spec", ["nowhere", "./no/where", "/no/where", "a/b/c"])
def test_what_is_no_hub_id_is_a_missing_folder(spec: str) -> None:
    with pytest.raises(UserError, match="expected a diffusers pipeline folder, found no such folder"):
        load(spec, CPU)


def test_a_hub_id_offline_says_how_to_pass_a_folder() -> None:
    with pytest.raises(UserError, match="offline, pass a local folder") as caught:
        load("nobody/nothing", CPU)
    assert str(caught.value).startswith("generator nobody/nothing: ") and "\n" not in str(caught.value)


def test_loading_leaves_the_libraries_loggers_as_they_were(tiny: Path) -> None:
    def states() -> list[tuple[list[logging.Handler], int]]:
        return [
            (list(logging.getLogger(n).handlers), logging.getLogger(n).level) for n in ("diffusers", "transformers")
        ]

    before = states()
    load(str(tiny), CPU)
    assert states() == before
