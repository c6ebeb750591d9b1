"""bench export, bench inspect and bench fit --dry-run on tiny pipelines, and whole runs on each family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from bench.__main__ import app
from bench.generator_commands import bits_of
from bench.planning import adjusted, duration, told
from bench.protocol import Modality, UserError
from bench.rng import stream
from bench.selection import load_generator
from modalities.audio import Audio
from modalities.image import Image
from modalities.image.data import public_images
from modalities.shape3d import Shape3D, data
from modalities.shape3d.grid_generator import EMBEDDED
from schemes import load_codec
from schemes.rehearsal import Rehearsal, rehearse
from schemes.training import Recipe
from schemes.weight_modulation import WeightModulation
from tests.plain_networks import dcgan, write_program
from tests.tiny_families import save_family, save_tiny_decoder
from tests.tiny_shapes import save_shape
from tests.tiny_sounds import save_sound

BITS = 6
SHORT = WeightModulation(bits=BITS, recipe=Recipe(steps=2, batch=4, pool=8))


def invoke(*words: str | Path | int) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: str | Path | int) -> str:
    result = invoke(*words)
    assert result.exit_code == 2 and result.stdout == "", result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("error: ")


def fit(modality: Modality, spec: str, path: Path) -> Path:
    """A codec of two steps, on its own generator."""
    generator = load_generator(modality, spec, "cpu")
    matched: Any = modality.matched(generator) if hasattr(modality, "matched") else modality
    SHORT.fit(matched, generator, stream(0, "fit")).save(path)
    return path


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A network and a codec for it."""
    spec = "tests.plain_networks:dcgan"
    return spec, fit(Image(), spec, tmp_path_factory.mktemp("gan") / "short.safetensors")


# Export


@pytest.mark.parametrize(("code", "bits"), [("010011", "010011"), ("0x13", "010011"), ("0X00", "000000")])
def test_a_code_is_exported_as_written(gan: tuple[str, Path], tmp_path: Path, code: str, bits: str) -> None:
    spec, codec = gan
    words = (
        "export",
        "--modality",
        "image",
        "--generator",
        spec,
        "--scheme",
        codec,
        "--out",
        tmp_path / "new" / "copy",
    )
    facts = json.loads(invoke(*words, "--fingerprint", code, "--json").stdout)
    assert facts["fingerprint"] == bits and facts["files"] == [str(tmp_path / "new" / "copy" / "model.safetensors")]
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["copy"], "nothing is left beside it"
    generator = load_generator(Image(), spec, "cpu")
    expected = load_codec(codec, Image(), generator).modulate(generator.decoder, bits_of(bits, BITS)).state_dict()
    written = load_file(facts["files"][0])
    assert written.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in written.items())


def test_a_user_s_copy_carries_the_code_of_the_run(gan: tuple[str, Path], tmp_path: Path) -> None:
    spec, codec = gan
    words = ("export", "--modality", "image", "--generator", spec, "--scheme", codec, "--json", "--user", 3)
    one, again = (json.loads(invoke(*words, "--out", tmp_path / name).stdout) for name in "ab")
    assert one["fingerprint"] == again["fingerprint"] and len(one["fingerprint"]) == BITS
    text = invoke(*words[:-3], "--user", 3, "--out", tmp_path / "c").stdout
    assert text == f"wrote {tmp_path / 'c'} (1 files), carrying {one['fingerprint']}\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "export: expected either --fingerprint or --user"),
        (("--user", 1, "--fingerprint", "010101"), "export: expected either --fingerprint or --user"),
        (("--fingerprint", "0101"), "fingerprint: expected 6 digits of 0 and 1, found 4 in '0101'"),
        (("--fingerprint", "01010x"), "fingerprint: expected 6 digits of 0 and 1, found 6 in '01010x'"),
        (("--fingerprint", "0xzz"), "fingerprint: expected 0x and 2 hexadecimal digits, found '0xzz'"),
        (("--fingerprint", "0xff"), "fingerprint: expected 6 digits of 0 and 1, found 8 in '11111111'"),
        (("--user", -1), "user: expected 0 to 999, found -1"),
    ],
)
def test_codes_that_are_none_are_refused(
    gan: tuple[str, Path], tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    spec, codec = gan
    shared = ("export", "--modality", "image", "--generator", spec, "--scheme", codec, "--out", tmp_path / "copy")
    assert refused(*shared, *words) == line
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for place in (tmp_path, tmp_path / "mine"):
        words = ("export", "--modality", "image", "--fingerprint", "01", "--out", place)
        assert refused(*words) == f"export {place}: expected an empty folder or none, found something there"
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_mark_behind_the_decoder_is_not_exported(tmp_path: Path) -> None:
    words = ("--scheme", "examples.outside_scheme:SpreadSpectrum", "--generator", "examples.outside_generator:Clouds")
    line = refused("export", "--modality", "tests.toy:Toy", *words, "--user", 0, "--out", tmp_path / "copy")
    assert line == "scheme 'SpreadSpectrum': expected one in the decoder's weights, found one behind the decoder"


def test_a_generator_from_outside_is_exported_as_its_decoder(tmp_path: Path) -> None:
    words = ("--scheme", "tests.toy:ToyScheme", "--user", 0, "--out", tmp_path / "copy", "--json")
    facts = json.loads(invoke("export", "--modality", "tests.toy:Toy", *words).stdout)
    assert set(load_file(tmp_path / "copy" / "decoder.safetensors")) == {"paint.weight", "paint.bias"}
    assert len(facts["fingerprint"]) == 32


# Inspect and dry run


def test_inspect_finds_the_modality_and_counts(tmp_path: Path) -> None:
    folder = save_sound("musicgen", tmp_path)
    found = json.loads(invoke("inspect", f"{folder}?seconds=0.1", "--json").stdout)
    states = {entry["path"]: entry["state"] for entry in found["modules"]}
    kinds = {entry["path"]: entry["kind"] for entry in found["modules"]}
    assert found["decoder"] == "EncodecDecoder" and found["modulated_layers"] == found["layers"] - 2
    assert states["layers.1.lstm"] == "skipped: the weights of LSTM cannot be written yet"
    assert states["layers.0.conv"] == "left as it is: the first layer" and kinds["layers.0.conv"] == "Conv1d"
    assert not [path for path in states if "parametrizations" in path]


def test_inspect_refuses_what_no_modality_loads(tmp_path: Path) -> None:
    assert refused("inspect", tmp_path).startswith(f"generator {tmp_path}: expected model_index.json in it, found none")
    assert refused("inspect", "tests.plain_networks:dcgan", "--scheme", "tests.toy:ToyScheme") == (
        "scheme ToyScheme: expected one that modulates weights, found none of its own"
    )


def test_a_dry_run_tells_what_all_steps_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENPRINT_CACHE", str(tmp_path))
    words = (
        "fit",
        "--modality",
        "image",
        "--generator",
        "tests.plain_networks:dcgan",
        "--scheme",
        "wouaf",
        "--dry-run",
    )
    found = json.loads(invoke(*words, "--steps", 500, "--batch", 4, "--json").stdout)
    assert (found["steps"], found["batch"], found["pool"]) == (500, 4, 4096)
    assert found["seconds"] == pytest.approx(500 * found["seconds_per_step"] + found["latents_seconds"])
    assert found["seconds_per_step"] > 0 and found["peak_bytes"] > 5e7
    assert not list(tmp_path.iterdir()), "nothing is kept"


def test_a_dry_run_leaves_the_decoder_and_the_global_generator_alone() -> None:
    generator = load_generator(Image(), "tests.plain_networks:dcgan", "cpu")
    before = {name: value.clone() for name, value in generator.decoder.state_dict().items()}
    state = torch.get_rng_state()
    found = rehearse(SHORT, Image(), generator, stream(0))
    assert found.steps == 2 and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in generator.decoder.state_dict().items())
    with pytest.raises(UserError, match="dry run: expected a scheme that is trained in steps, found object"):
        rehearse(object(), Image(), generator, stream(0))


def test_what_a_dry_run_tells_is_one_line() -> None:
    line = told(Rehearsal(10_000, 16, 4096, 0.54, 300.0, 2_500_000_000))
    assert line == (
        "at most 10000 steps of 16 items, 0.54 s each; 4096 latents first, about 5.0 min; "
        "about 1.6 h in all; peak memory 2.5 GB; nothing was kept"
    )
    assert duration(59) == "59 s"


def test_a_fit_takes_fewer_items_a_step() -> None:
    assert adjusted(SHORT, 7, 2).recipe == Recipe(steps=7, batch=2, pool=8)
    with pytest.raises(UserError, match="batch: expected at least 1, and finite, found -2"):
        adjusted(SHORT, 0, -2)


def test_a_fit_is_asked_for_another_fidelity() -> None:
    assert adjusted(SHORT, 0, psnr_db=33.5).recipe == Recipe(steps=2, batch=4, pool=8, psnr_db=33.5)
    for value, found in ((0.5, "0.5"), (float("nan"), "nan"), (float("inf"), "inf")):
        with pytest.raises(UserError, match=f"^psnr-db: expected at least 1, and finite, found {found}$"):
            adjusted(SHORT, 0, psnr_db=value)


# Whole runs


IMAGES = {name: "steps=1" for name in ("sd", "sdxl", "sd3", "sana", "taesd")} | {"flux": "steps=1&size=64"}
SOUNDS = {"ace-step": "steps=1&seconds=0.2", "audioldm2": "steps=1", "audioldm2-vocoder": "steps=1&part=vocoder"}
SOUNDS |= {
    "musicgen": "seconds=0.2",
    "musicgen-stereo": "seconds=0.2",
    "bark": "seconds=0.2",
    "stable-audio": "steps=1",
}
SHAPES = {"shap-e": "steps=1&guidance=2&size=32"}
FIELDS = ("field", "hunyuan3d")
NETWORKS = {"dcgan": "image", "stylegan": "image", "program": "image", "waves": "audio", "audiocraft": "audio"}


def place(name: str, folder: Path) -> tuple[str, str]:
    """Modality, and what `--generator` takes."""
    if name == "program":
        return "image", str(write_program(dcgan(), (8, 1, 1), folder / "dcgan.pt2"))
    if name in NETWORKS:
        return NETWORKS[name], f"tests.plain_networks:{name}" + ("?seconds=0.2" if name == "audiocraft" else "")
    if name in IMAGES:
        other = f"&decoder={save_tiny_decoder(folder)}" if name == "taesd" else ""
        return "image", f"{save_family('sd' if name == 'taesd' else name, folder)}?{IMAGES[name]}{other}"
    if name in FIELDS:
        return "3d", f"tests.field_networks:{name}"
    if name == "grid":
        return "3d", f"{EMBEDDED}?steps=2"  # untrained, it would make meshes of 360,000 triangles
    if name in SHAPES:
        return "3d", f"{save_shape(name, folder)}?{SHAPES[name]}"
    if name == "stable-audio":
        from tests.tiny_audio import save_tiny

        return "audio", f"{save_tiny(folder)}?{SOUNDS[name]}"
    return "audio", f"{save_sound(name.removesuffix('-vocoder'), folder)}?{SOUNDS[name]}"


QUICK = ("sana", "dcgan", "musicgen", "field")
"""Run every time: a pipeline, two networks and a language model. The others take five to thirteen seconds each, too."""
NAMES = (*IMAGES, *SOUNDS, *NETWORKS, *SHAPES, *FIELDS, "grid")
RUNS = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NAMES]
MILD = {"image": "jpeg", "audio": "white-noise", "3d": "vertex-noise"}


@pytest.mark.parametrize("name", RUNS)
def test_fit_and_smoke_run_end_to_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("GENPRINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("bench.figures.draw", lambda folder: [])
    monkeypatch.setattr("modalities.image.data.training_images", lambda _: public_images())  # what ships, unbuilt
    shipped = data.shipped("fit")[0]
    monkeypatch.setattr(data, "rows_of", lambda splits: list(range(len(shipped))))
    monkeypatch.setattr(data, "fields", lambda rows, variants: shipped[rows])
    modality, spec = place(name, tmp_path)
    codec = fit({"image": Image(), "audio": Audio(), "3d": Shape3D()}[modality], spec, tmp_path / "short.safetensors")
    attacks = ("--attack", MILD[modality], "--attack", "weight-noise")
    words = ("--generator", spec, "--scheme", codec, "--preset", "smoke", *attacks, "--out", tmp_path / "out", "--json")
    result = invoke("run", "--modality", modality, *words)
    assert result.exit_code == 0, result.output
    (line,) = json.loads(result.stdout)["leaderboard"]
    assert line["bits"] == BITS and 0 <= line["bit_accuracy"] <= 1 and line["robustness_model"] is not None
    assert line["paired_value"] is not None
