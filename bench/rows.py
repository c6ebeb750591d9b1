"""The long table: one row per item, attack and user, as Arrow columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.calibration import p_value
from bench.metrics.attribution import hard_matches, identify
from bench.protocol import Target

Kind = Literal["fingerprinted", "original", "reference"]

SCHEMA = pa.schema(
    {
        "modality": pa.string(),
        "generator": pa.string(),
        "scheme": pa.string(),
        "attack": pa.string(),
        "target": pa.string(),
        "strength": pa.float64(),
        "user": pa.int32(),
        "item": pa.int32(),
        "bits": pa.int32(),
        "matches": pa.int32(),
        "soft_score": pa.float32(),
        "rank": pa.int32(),
        "registered": pa.int32(),
        "p_value": pa.float64(),
        "is_negative": pa.bool_(),
    }
)
"""The first columns; the modality's distortion columns (float32) and :data:`MORE` follow."""

MORE = pa.schema(
    {
        "kind": pa.string(),
        "repr": pa.string(),
        "group": pa.int32(),
        "members": pa.list_(pa.int32()),
        "bit_accuracy": pa.float64(),
        "accepted": pa.bool_(),
        "correct": pa.bool_(),
        "soft_bits": pa.list_(pa.float32()),
    }
)


@dataclass(frozen=True)
class Label:
    """What all rows of a cell share; the names are those of the columns."""

    modality: str
    generator: str
    scheme: str
    attack: str
    target: Target
    strength: float
    repr: str


@dataclass(frozen=True)
class Book:
    """Registered codes and the decision that goes with them.

    Attributes:
        codes: (N, bits), those of the generated users first.
        tau: fewest matches that are accepted; None when no threshold is enough.
    """

    codes: Tensor
    tau: int | None


def fingerprinted_rows(label: Label, soft: Tensor, book: Book, paired: Mapping[str, Tensor], items: int) -> pa.Table:
    """Rows of content made with user 0, 1, ...'s own decoder, ``items`` each.

    Args:
        label: of the cell.
        soft: soft bits (n, bits), user by user.
        book: registered codes.
        paired: distortion columns, name to (n,).
        items: items per user.

    Returns:
        ``rank`` is that of the true user, ``correct`` says that it is first and accepted.
    """
    users = torch.arange(len(soft)) // items
    found = identify(soft, users, book.codes, book.tau)
    columns = {
        "user": users,
        "group": users,
        "members": users[:, None],
        "item": torch.arange(len(soft)) % items,
        "matches": found.matches,
        "rank": found.rank,
        "bit_accuracy": found.matches.double() / soft.shape[1],
        "accepted": found.accepted,
        "correct": found.correct,
        "soft_score": _score(soft, book.codes[users]),
    }
    return _table(label, "fingerprinted", soft, book, columns | dict(paired))


def coalition_rows(
    label: Label, soft: Tensor, book: Book, paired: Mapping[str, Tensor], members: Sequence[Sequence[int]]
) -> pa.Table:
    """Rows of content made with the merged decoders of coalitions, the same number of items for each.

    Returns:
        ``user`` is the first member, ``group`` the coalition; ``matches``, ``rank`` and ``soft_score`` are those of
        the member that matches best, ``bit_accuracy`` is the mean over the members; ``accepted`` says that somebody
        is accused, ``correct`` that it is a member.
    """
    owners = torch.tensor(members).repeat_interleave(len(soft) // len(members), dim=0)  # (n, c)
    matches = hard_matches(soft, book.codes)  # (n, N)
    own, place = matches.gather(1, owners).max(1)
    enough = len(soft[0]) + 1 if book.tau is None else book.tau
    most, best = matches.max(1).values, matches.argmax(1)
    suspect = owners.gather(1, place[:, None])[:, 0]
    columns = {
        "user": owners[:, 0],
        "group": torch.arange(len(members)).repeat_interleave(len(soft) // len(members)),
        "members": owners,
        "item": torch.arange(len(soft)) % (len(soft) // len(members)),
        "matches": own,
        "rank": 1 + (matches > own[:, None]).sum(1),
        "bit_accuracy": matches.gather(1, owners).double().mean(1) / soft.shape[1],
        "accepted": most >= enough,
        "correct": (most >= enough) & (owners == best[:, None]).any(1),
        "soft_score": _score(soft, book.codes[suspect]),
    }
    return _table(label, "fingerprinted", soft, book, columns | dict(paired))


def negative_rows(label: Label, soft: Tensor, book: Book, kind: Kind) -> pa.Table:
    """Rows of content that no registered user made.

    Returns:
        ``matches`` and ``soft_score`` are those of the registered user that fits best, of all N; ``p_value`` is that
        of this user alone. ``accepted`` marks a false positive.
    """
    matches = hard_matches(soft, book.codes)
    most, best = matches.max(1).values, matches.argmax(1)
    nobody = torch.full_like(most, -1)
    columns = {
        "user": nobody,
        "group": nobody,
        "members": torch.empty(len(soft), 0, dtype=torch.int64),
        "item": torch.arange(len(soft)),
        "matches": most,
        "rank": nobody,
        "bit_accuracy": most.double() / soft.shape[1],
        "accepted": most >= (soft.shape[1] + 1 if book.tau is None else book.tau),
        "correct": torch.zeros(len(soft), dtype=torch.bool),
        "soft_score": _score(soft, book.codes[best]),
    }
    return _table(label, kind, soft, book, columns)


def stack(tables: Sequence[pa.Table]) -> pa.Table:
    """One table; distortion columns that some lack are null there."""
    names = list(SCHEMA.names)
    names += [name for table in tables for name in table.column_names if name not in (*SCHEMA.names, *MORE.names)]
    return pa.concat_tables(tables, promote_options="default").select([*dict.fromkeys(names), *MORE.names])


def soft_bits(rows: pa.Table) -> Tensor:
    """Soft bits (n, bits), float32, of a cell's rows."""
    flat = rows["soft_bits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return torch.from_numpy(np.array(flat, dtype=np.float32)).reshape(rows.num_rows, -1)


def column(rows: pa.Table, name: str) -> NDArray[Any]:
    """A column as a writable array."""
    return np.array(rows[name].to_numpy())


def _score(soft: Tensor, codes: Tensor) -> Tensor:
    """Mean over bits of the soft bit, positive when it agrees with the code."""
    return (soft * (2 * codes - 1)).mean(1)


def _table(label: Label, kind: Kind, soft: Tensor, book: Book, columns: dict[str, Tensor]) -> pa.Table:
    n, bits = soft.shape
    p_values = torch.from_numpy(p_value(columns["matches"], bits))
    shared = vars(label) | {"kind": kind, "bits": bits, "registered": len(book.codes)}
    shared["is_negative"] = kind != "fingerprinted"
    arrays = {name: _array(value) for name, value in (columns | {"p_value": p_values, "soft_bits": soft}).items()}
    arrays |= {name: pa.array([value] * n) for name, value in shared.items()}
    distortions = {name: pa.float32() for name in columns if name not in (*SCHEMA.names, *MORE.names)}
    types = {field.name: field.type for schema in (SCHEMA, pa.schema(distortions), MORE) for field in schema}
    return pa.table({name: arrays[name].cast(kind) for name, kind in types.items()})


def _array(values: Tensor) -> Any:
    plain = values.detach().cpu().contiguous().numpy()
    if plain.ndim == 1:
        return pa.array(plain)
    offsets = np.arange(len(plain) + 1, dtype=np.int32) * plain.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(plain.reshape(-1)))
