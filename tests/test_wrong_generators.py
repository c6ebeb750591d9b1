"""What is no generator, or none that can be fingerprinted: one line by every command, exit 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_generator_commands import refused
from tests.tiny_families import save_family
from tests.tiny_sounds import save_sound


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("folders")
    (place / "empty").mkdir()
    (place / "junk.bin").write_bytes(b"junk")
    return {
        "pipeline": save_family("sd", place),
        "model": save_sound("musicgen", place),
        "empty": place / "empty",
        "junk": place / "junk.bin",
        "nowhere": place / "nowhere",
    }


COMMANDS = {
    "inspect": (),
    "fit": ("--scheme", "wouaf", "--dry-run"),
    "run": ("--out",),
    "export": ("--scheme", "wouaf", "--user", 0, "--out"),
}
WRONG = {
    ("audio", "pipeline"): "expected a text-to-audio pipeline, found StableDiffusionPipeline",
    ("image", "model"): "expected model_index.json in it, found a single MusicgenForConditionalGeneration",
    ("image", "empty"): "expected model_index.json in it, found none",
    ("image", "junk"): "expected a folder or a torch.export file (.pt2), found a file that is neither",
    ("audio", "nowhere"): "expected a diffusers pipeline folder, found no such folder",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("modality", "kind"), WRONG)
def test_what_is_no_generator_of_the_modality_ends_in_one_line(
    folders: dict[str, Path], tmp_path: Path, command: str, modality: str, kind: str
) -> None:
    place, rest = folders[kind], COMMANDS[command]
    named = (place,) if command == "inspect" else ("--generator", place)
    out = (tmp_path / "out",) if rest and rest[-1] == "--out" else ()
    line = refused(command, *named, "--modality", modality, *rest, *out)
    assert line == f"generator {place}: {WRONG[modality, kind]}"
    assert not list(tmp_path.iterdir()), "nothing half-written"


def test_an_architecture_that_cannot_be_fingerprinted_is_named() -> None:
    spec = "tests.plain_networks:only_embeddings"
    line = refused("fit", "--modality", "image", "--generator", spec, "--scheme", "wouaf", "--dry-run")
    assert line == (
        "decoder OnlyEmbeddings: expected convolutions or linear layers to modulate, found Embedding, GRUCell"
    )
    assert refused("inspect", spec, "--modality", "image") == (
        "decoder OnlyEmbeddings: expected convolutions or linear layers, found Embedding, GRUCell"
    )
