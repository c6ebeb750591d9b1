"""LDraw's parts: the file format, captions, splits that no mould crosses, and what ships."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.protocol import UserError
from modalities.shape3d import Shape3D, data, ldraw, parts
from modalities.shape3d.ldraw import Library, rgb
from modalities.shape3d.parts import COLOURS, VARIANTS, Part, captions, every_part, largest_categories

SPLITS = ("fit", "prompts", "reference")
LIBRARY = {
    "3001.dat": "0 Brick  2 x  4\n0 !CATEGORY Brick\n1 16 0 0 0 1 0 0 0 1 0 0 0 1 s\\3001s01.dat\n"
    "3 4 0 0 0 1 0 0 0 1 0\n",
    "s/3001s01.dat": "0 ~Sub\n1 1 10 0 0 2 0 0 0 2 0 0 0 2 square.dat\n1 16 0 5 0 1 0 0 0 1 0 0 0 1 SQUARE.DAT\n",
    "square.dat": "0 Square\n4 16 -1 0 -1 -1 0 1 1 0 1 1 0 -1\n2 24 0 0 0 1 1 1\n",
    "moved.dat": "0 ~Moved to 3001\n",
    "sticker.dat": "0 Sticker  1 x 1\n",
    "loop.dat": "0 Loop\n1 16 0 0 0 1 0 0 0 1 0 0 0 1 loop.dat\n3 0x2FF0000 0 0 0 1 0 0 0 1 0\n",
}


def library() -> Library:
    first = {name: text.partition("\n")[0][2:].strip() for name, text in LIBRARY.items() if "/" not in name}
    return Library(dict(LIBRARY), {name: line for name, line in first.items() if name != "square.dat"})


def test_files_refer_to_files_with_places_and_colours() -> None:
    corners, codes = library().triangles("3001.dat")
    assert codes.tolist() == [1, 1, 16, 16, 4]
    assert corners[0].tolist() == [[8, 0, -2], [8, 0, 2], [12, 0, 2]], "moved by 10 and twice as large"
    assert corners[2][0].tolist() == [-1, 5, -1] and corners[4].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert not len(library().triangles("absent.dat")[1])


def test_a_file_that_refers_to_itself_ends() -> None:
    codes = library().triangles("loop.dat")[1]
    assert 0 < len(codes) <= ldraw.DEEPEST and set(codes.tolist()) == {0x2FF0000}
    assert (
        rgb(0x2FF0000, {}) == (255, 0, 0) and rgb(7, {7: (1, 2, 3)}) == (1, 2, 3) and rgb(9999, {}) == (128, 128, 128)
    )


def test_parts_are_things_of_their_own() -> None:
    found = {part.code: part for part in library().parts()}
    assert found.keys() == {"3001", "loop"}
    assert found["3001"] == Part("3001", "brick 2 x 4", "brick")


def test_captions_name_colour_and_part() -> None:
    brick = Part("3001", "brick 2 x 4", "brick")
    assert len(set(brick.colours)) == VARIANTS and set(brick.colours) <= set(COLOURS)
    assert [brick.caption(v) for v in range(VARIANTS)] == [f"{c} brick 2 x 4" for c in brick.colours]


@pytest.mark.parametrize(
    ("code", "mould"), [("3001", "3001"), ("3001p01", "3001"), ("3062b", "3062"), ("u9102p09", "u9102")]
)
def test_printed_and_moulded_variants_share_a_split(code: str, mould: str) -> None:
    assert Part(code, "x", "x").mould == mould
    assert Part(code, "x", "x").split == Part(mould, "y", "y").split


def test_paints_are_numbered_and_the_nearest_taken_when_there_is_no_room() -> None:
    paints = {(0, 0, 0): 0}
    numbers = data._painted(np.array([16, 4, 24, 4, 0]), {4: (200, 0, 0), 0: (0, 0, 0)}, paints)
    assert numbers[0] == numbers[2] == 0 and numbers[1] == numbers[3] != numbers[4] > 0
    full = {(i, 0, 0): i for i in range(data.PAINTS)}
    assert data._painted(np.array([7]), {7: (100, 3, 0)}, full).tolist() == [100] and len(full) == data.PAINTS


def test_fields_take_the_parts_own_colour_where_nothing_is_printed() -> None:
    distance = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    paint = torch.tensor([0, 1], dtype=torch.uint8).view(1, 1, 2, 1).expand(1, 2, 2, 2)
    paints = torch.zeros(256, 3, dtype=torch.uint8)
    paints[1] = torch.tensor([255, 0, 0])
    field = data.as_fields(distance, paint, paints, torch.tensor([[0, 0, 255]], dtype=torch.uint8))[0]
    assert field.shape == (4, 2, 2, 2) and field[0, :, 0, 0].tolist() == [-1, 1]
    assert field[1:, 0, 0, 0].tolist() == [0, 0, 1] and field[1:, 0, 1, 0].tolist() == [1, 0, 0]


# What ships

BY_SPLIT = {split: [p for p in every_part() if p.split == split] for split in SPLITS}


def test_at_least_4000_captioned_parts_of_different_moulds() -> None:
    assert len(every_part()) >= 4000 and len({part.code for part in every_part()}) == len(every_part())
    moulds = [{part.mould for part in BY_SPLIT[split]} for split in SPLITS]
    assert not moulds[0] & moulds[1] and not moulds[1] & moulds[2] and not moulds[0] & moulds[2]
    for share, split in zip((0.70, 0.15, 0.15), moulds, strict=True):
        total = sum(map(len, moulds))
        assert len(split) / total == pytest.approx(share, abs=4 * (share * (1 - share) / total) ** 0.5)


def test_captions_are_plain_lower_case_words() -> None:
    for split in SPLITS:
        known = captions(split)
        assert len(known) == len(set(known)) > 1000
        assert all(text == text.lower() and "  " not in text and len(text.split()) <= 11 for text in known)
    assert len(largest_categories()) == 10 and "brick" in largest_categories()[:3]


@pytest.mark.parametrize("split", list(data.COUNTS))
def test_shipped_parts_are_of_their_split_one_of_each_mould(split: str) -> None:
    fields, chosen = data.shipped(split)
    assert fields.shape == (data.COUNTS[split], 4, 32, 32, 32)
    assert {part.split for part, _ in chosen} == {split}
    assert len({part.mould for part, _ in chosen}) == len(chosen) == data.COUNTS[split]
    inside = (fields[:, 0] > 0).flatten(1).float().mean(1)
    assert float(inside.min()) > 0 and float(inside.max()) < 0.75
    border = torch.cat([fields[:, 0].select(axis, end).flatten() for axis in (1, 2, 3) for end in (0, 31)])
    assert float(border.max()) < 0, "nothing touches the cube"


def test_the_reference_is_meshes_that_can_be_published() -> None:
    meshes = Shape3D().reference(8)
    Shape3D().check(meshes)
    assert len(Shape3D().reference(3)) == 3 and len(meshes) == 8


def test_what_ships_is_small_and_comes_with_its_licence() -> None:
    found = {path.name: path.stat().st_size for path in parts.SHIPPED.iterdir()}
    assert sum(found.values()) <= 6 * 2**20
    assert {"CAlicense.txt", "CAreadme.txt", "authors.txt", "parts.csv"} < found.keys()
    authors = (parts.SHIPPED / "authors.txt").read_text(encoding="utf-8")
    assert "James Jessiman" in authors and len(authors.splitlines()) > 100


def test_without_the_training_set_the_message_says_how_to_make_it(cache: object) -> None:
    data.full_set.cache_clear()
    with pytest.raises(UserError, match="make data MODALITY=3d") as caught:
        data.full_set()
    assert str(cache) in str(caught.value) and "\n" not in str(caught.value)
