"""Result cells on disk: one Parquet file each, named by the hash of what determines it, written whole or not at all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench import rows as long_table
from bench.engine import logger
from bench.folders import replacing
from bench.presets import Plan
from bench.protocol import UserError

FORMAT = 1
"""Version of the files in a results folder; raised when their meaning changes."""

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One scheme under one attack, or under none.

    Attributes:
        rows: see ``bench.rows``.
        summary: what is not per item: ``scheme``, ``attack``, ``repr``, ``target``, ``strength``, ``seconds``, Fréchet
            distances.
    """

    rows: pa.Table
    summary: Summary


def write_json(value: object, path: Path) -> None:
    """Write indented JSON, atomically."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Store:
    """The cells of a results folder."""

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Make the folder, or take up the one that is there.

        Raises:
            UserError: when it cannot be written, or another version of the format wrote it.
        """
        if (folder / "run.json").exists():
            read_info(folder)
        try:
            (folder / "cells").mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder / "cells"):
                pass
        except OSError as error:
            raise UserError(f"results folder {folder}: expected to write there, found: {error.strerror}") from error
        return cls(folder)

    def path(self, key: str) -> Path:
        """File of a cell."""
        return self.folder / "cells" / f"{key}.parquet"

    def read(self, key: str) -> Cell | None:
        """The cell, or None when it has to be measured."""
        try:
            return _read(self.path(key))
        except FileNotFoundError:
            return None
        except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            logger.warning("%s is not readable (%s); measuring it again", self.path(key), error)
            return None

    def write(self, key: str, cell: Cell) -> Cell:
        """Keep a cell.

        Returns:
            The cell as a later process will read it, so that a resumed run works on the very same values.
        """
        with replacing(self.path(key)) as partial:
            pq.write_table(_with_metadata(cell.rows, cell.summary), partial, compression="zstd")
        return _read(self.path(key))


@dataclass(frozen=True)
class Results:
    """A run, finished or not.

    Attributes:
        folder: where its files are.
        plan: its numbers.
        info: what ``run.json`` holds.
        cells: in the order of the run.
    """

    folder: Path
    plan: Plan
    info: Mapping[str, Any]
    cells: tuple[Cell, ...]

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Read a results folder: ``rows.parquet`` when the run finished, else the cells that exist.

        Raises:
            UserError: when the folder holds no run, or one of another version.
        """
        info = read_info(folder)
        rows = folder / "rows.parquet"
        if info["finished"] and rows.is_file():
            cells = _split(rows)
        else:
            found = (Store(folder).read(key) for key in info["cells"])
            cells = [cell for cell in found if cell is not None]
        if not cells:
            raise UserError(f"results folder {folder}: expected rows.parquet or cells/*.parquet, found neither")
        return cls(folder, Plan.from_dict(info["plan"]), info, tuple(cells))

    def save_rows(self) -> Path:
        """Write ``rows.parquet``: all rows in order, the summaries in its metadata."""
        path = self.folder / "rows.parquet"
        table = long_table.stack([cell.rows for cell in self.cells]).combine_chunks()
        with replacing(path) as partial:
            pq.write_table(_with_metadata(table, [cell.summary for cell in self.cells]), partial, compression="zstd")
        return path


def read_info(folder: Path) -> dict[str, Any]:
    """Contents of ``run.json``.

    Raises:
        UserError: when it is missing, not ours, or of another version.
    """
    path = folder / "run.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) else "no JSON"
        raise UserError(f"results folder {folder}: expected run.json of a run, found: {found}") from error
    found = info.get("format") if isinstance(info, dict) else None
    if found != FORMAT:
        raise UserError(f"results folder {folder}: expected results of format {FORMAT}, found format {found}")
    return dict(info)


def _read(path: Path) -> Cell:
    table = pq.read_table(path)
    return Cell(table.replace_schema_metadata(), json.loads(table.schema.metadata[b"genprint"]))


def _with_metadata(table: pa.Table, value: Summary | Sequence[Summary]) -> pa.Table:
    return table.replace_schema_metadata({b"genprint": json.dumps(value).encode()})


def _split(path: Path) -> list[Cell]:
    try:
        table = pq.read_table(path)
        summaries = json.loads(table.schema.metadata[b"genprint"])
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: expected rows of a run, found: {str(error).splitlines()[0]}") from error
    table = table.replace_schema_metadata()
    return [
        Cell(table.filter((pc.field("scheme") == each["scheme"]) & (pc.field("repr") == each["repr"])), each)
        for each in summaries
    ]
