"""Who may import whom (the folders' contract), and that importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench

ROOT = Path(bench.__file__).parent.parent
PARTS = ("attacks", "modalities", "schemes")
SHARED = (
    "bench.protocol",
    "bench.bounds",
    "bench.content",
    "bench.rng",
    "bench.weights",
    "bench.naming",
    "bench.folders",
    "bench.metrics",
    "bench.muon",
    "bench.precision",
    "bench.parallel",
    "bench.digest",
    "bench.pool",
)
KNOW_ALL = ("__main__.py", "commands.py", "compare_commands.py", "selection.py", "presets.py", "attack_pages.py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth; ``from a import b`` counts as ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def under(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("package", PARTS)
def test_parts_import_only_the_contracts_of_bench(package: str) -> None:
    found = {(path.name, name) for path in sources(package) for name in imports(path) if under(name, ("bench",))}
    assert not {(file, name) for file, name in found if not under(name, SHARED)}


def test_bench_knows_the_parts_only_where_names_become_objects() -> None:
    wrong = [path.name for path in sources("bench") if any(under(name, PARTS) for name in imports(path))]
    assert not set(wrong) - set(KNOW_ALL)
    assert wrong, "the command line does import them"


@pytest.mark.parametrize("module", SHARED)
def test_shared_modules_import_nothing_of_ours_but_each_other(module: str) -> None:
    place = ROOT / module.replace(".", "/")
    paths = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    allowed = (*SHARED, "bench.calibration")  # thresholds are part of the metrics
    names = {name for path in paths for name in imports(path)}
    assert not {name for name in names if under(name, ("bench", *PARTS)) and not under(name, allowed)}


SIDE_EFFECTS = """
import os, sys, torch
from pathlib import Path
before, seed = sorted(Path(".").rglob("*")), torch.initial_seed()
state = torch.get_rng_state()
import bench, bench.__main__, bench.run, bench.commands, bench.selection, bench.samples, bench.figures
{parts}
assert sorted(Path(".").rglob("*")) == before, "importing wrote files"
assert torch.initial_seed() == seed and torch.equal(torch.get_rng_state(), state), "importing seeded"
assert "GENPRINT_CACHE" not in os.environ
"""


def test_importing_writes_nothing_and_seeds_nothing(tmp_path: Path) -> None:
    parts = "".join(f"import {package}\n" for package in PARTS)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + SIDE_EFFECTS.format(parts=parts)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path / "..")}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_an_intruder_is_named(tmp_path: Path) -> None:
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "__init__.py").write_text("raise SystemExit('the intruder was imported')")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import bench"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: package 'attacks' is found at ") and str(tmp_path / "attacks") in last


@pytest.mark.parametrize("path", [path for package in (*PARTS, "bench") for path in sources(package)], ids=str)
def test_files_stay_readable(path: Path) -> None:
    """At most 300 lines a file; a function at most 40 lines below its signature and docstring, six parameters."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
            lines = (node.end_lineno or 0) - first.lineno + 1
            assert lines <= 40, f"{node.name} has {lines} lines"
            counted = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            own = [each for each in counted if each.arg not in ("self", "cls")]
            assert len(own) <= 6 or path.name.endswith("commands.py"), f"{node.name} has {len(own)} parameters"
            assert node.args.kwarg is None, f"{node.name} takes **{node.args.kwarg}"
