"""The project around the code: targets, versions, licences, dependencies, and what must not be in the repository."""

from __future__ import annotations

import ast
import csv
import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bench
import modalities.audio.data
import modalities.audio.pretrained
import modalities.image.pretrained
import modalities.shape3d.data
from modalities.image import data
from modalities.packages import Package

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("attacks", "bench", "modalities", "schemes")
MAKEFILE = (ROOT / "Makefile").read_text()
IMPORT_NAMES = {
    "DracoPy": "dracopy",
    "PIL": "pillow",
    "fast_simplification": "fast-simplification",
    "huggingface_hub": "huggingface-hub",
    "point_cloud_utils": "point-cloud-utils",
    "skimage": "scikit-image",
    "torch_fidelity": "torch-fidelity",
    "visqol": "visqol-python",
}
BY_OTHERS = {"pywavelets", "torchsde"}
"""Dependencies that only a dependency imports."""
TARGETS = {
    *("setup", "bench", "fit", "embedded", "data", "leaderboards"),
    *("compare", "figures", "test", "check", "speed", "help"),
}


def make(*arguments: str) -> str:
    done = subprocess.run(["make", "-s", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def planned(*arguments: str) -> list[str]:
    """Commands that make would run, were the environment set up."""
    return make("-n", "-o", ".venv/.ready", *arguments).splitlines()


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[<>=!~\[;]", requirement)[0].strip() for requirement in requirements]


def repository() -> list[Path]:
    """Files that are in the repository, or would be after `git add --all`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_every_target_is_phony_and_listed_by_help() -> None:
    targets = re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert sorted(phony[1].split()) == sorted(targets)
    assert [line.split()[1] for line in make("help").splitlines()] == targets
    assert make() == make("help"), "help is the default"
    assert set(targets) == TARGETS


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["bench"], "-m bench run --modality 'image' --preset 'quick'"),
        (
            ["bench", "MODALITY=3d", "PRESET=smoke", "GENERATOR=a b", "SCHEME=x:Y"],
            "-m bench run --modality '3d' --preset 'smoke' --generator 'a b' --scheme 'x:Y'",
        ),
        (["fit", "SCHEME=amplitude"], "-m bench fit --modality 'image' --scheme 'amplitude'"),
        (["embedded"], "-m modalities.image.train"),
        (["data", "MODALITY=nonsense"], "-m bench fit --modality 'nonsense' --scheme none"),
        (["figures", "PRESET=reference"], "-m bench figures 'leaderboards/image/reference'"),
        (["figures"], "-m bench figures"),
        (["compare", "MODALITY=audio"], "-m bench compare --modality 'audio' --preset 'quick'"),
        (["test"], "-m pytest"),
    ],
)
def test_a_target_runs_one_command_once_set_up(arguments: list[str], command: str) -> None:
    (line,) = planned(*arguments)
    assert line.split() == [".venv/bin/python", *command.split()]


def test_set_up_depends_on_what_it_installs_and_on_nothing_else() -> None:
    assert "\n$(READY): requirements.lock pyproject.toml\n" in MAKEFILE
    needing = re.findall(r"^([a-z]+): \$\(READY\)", MAKEFILE, re.MULTILINE)
    assert len(needing) == 11, "every target but help sets up first"


def test_one_version() -> None:
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert PROJECT["version"] == bench.__version__ == cited[1]
    assert f"## [{bench.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_documented_dependencies_are_the_declared_ones() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text()
    listed = {
        heading: re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)
        for heading, part in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    }
    assert listed["Run time"] == names(PROJECT["dependencies"])
    assert listed["Development"] == names(PROJECT["optional-dependencies"]["dev"])
    assert listed["Optional"] == extras()
    assert not {*listed["Considered and left out"]} & {*listed["Run time"], *listed["Development"], *extras()}


def extras() -> list[str]:
    """What a user may add."""
    lists = [names(wanted) for extra, wanted in PROJECT["optional-dependencies"].items() if extra != "dev"]
    return [name for wanted in lists for name in wanted]


def test_the_packages_import_every_dependency_and_nothing_else() -> None:
    imported: set[str] = set()
    for path in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    outside = imported - {*sys.stdlib_module_names, *PACKAGES, "_typeshed"}
    named = {IMPORT_NAMES.get(name, name) for name in outside}
    assert named | BY_OTHERS == {*names(PROJECT["dependencies"]), *extras()} and not named & BY_OTHERS


def test_the_lock_pins_every_dependency() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = [line.split(";")[0].strip() for line in lines if line and not line.lstrip().startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line) for line in pinned), "name==version, no hosts, no paths"
    direct = names([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]])
    assert set(direct) <= {line.split("==")[0] for line in pinned}


def test_every_shipped_file_has_its_licence() -> None:
    patterns = re.findall(r"^\| `([^`]+)` \|", (ROOT / "THIRD_PARTY.md").read_text(), re.MULTILINE)
    code = {".py", ".md", ".pyc", ".typed"}
    shipped = [
        path.relative_to(ROOT).as_posix()
        for path in repository()
        if path.relative_to(ROOT).parts[0] in PACKAGES and path.suffix not in code
    ]
    assert "modalities/image/reference/images.zip" in shipped
    unnamed = [name for name in shipped if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    assert not unnamed, "name these in THIRD_PARTY.md, with licence and source"


def test_sources_are_those_that_are_fetched() -> None:
    rows = re.findall(r"^\| \w+ \| `([^`]+)` \((\w+)\) \| `([^`]+)` \| `(\w{64})` \|", third_party(), re.MULTILINE)
    audio, image = modalities.audio, modalities.image
    modules = (audio.data, audio.pretrained, image.data, image.pretrained, modalities.shape3d.data)
    fetched = [value for module in modules for value in vars(module).values() if isinstance(value, Package)]
    assert {(p.name, p.registry, p.version, p.sha256) for p in fetched} == {
        (name, registry.lower(), version, digest) for name, registry, version, digest in rows
    }


def third_party() -> str:
    return (ROOT / "THIRD_PARTY.md").read_text()


def test_concepts_are_one_table() -> None:
    with (data.SHIPPED / "concepts.csv").open(encoding="utf-8", newline="") as file:
        codes = [row["code"] for row in csv.DictReader(file)]
    assert len(codes) == len(set(codes)) > 1500


FORBIDDEN = {
    "an absolute path of some machine": r"(?<![\w.~$}/-])/(?:home|root|Users|work|mnt|opt|tmp)/\w",
    "the host of a package registry": r"(?:pypi|python" + r"hosted|npm" + r"js)\.(?:org|com)|download\.pytorch\.",
    "an index of packages": r"(?:extra-)?index-" + r"url\s*=|find-" + r"links\s*=",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_repository_names_no_machine_and_no_registry(what: str) -> None:
    found = []
    for path in repository():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        hits = re.findall(FORBIDDEN[what], text)
        found += [(path.relative_to(ROOT).as_posix(), hit) for hit in hits if path != Path(__file__).resolve()]
    assert not found, what


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_beside_the_packages_becomes_a_package(package: str) -> None:
    assert (ROOT / package / "__init__.py").is_file()
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == sorted(PACKAGES)
