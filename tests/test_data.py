"""The emoji: captions, splits that no gender variant crosses, and the archives that ship."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
import torch

from bench.protocol import UserError
from modalities.image import data

SPLITS = ("fit", "prompts", "reference")
CODES = {split: {c.code for c in data.concepts() if c.split == split} for split in SPLITS}
MEGABYTE = 2**20


def members(archive: str) -> list[tuple[str, str]]:
    """Style and code of each picture of a shipped archive."""
    with zipfile.ZipFile(data.SHIPPED / archive) as file:
        return [(path.parent.name, path.stem) for path in map(Path, file.namelist()) if path.suffix == ".webp"]


def test_every_concept_falls_into_one_split() -> None:
    assert {c.split for c in data.concepts()} == set(SPLITS)
    assert sum(len(codes) for codes in CODES.values()) == len(data.concepts()) == len(set.union(*CODES.values()))
    labels = [c.label for c in data.concepts()]
    assert len(labels) == len(set(labels)), "a label in two splits would leak"


@pytest.mark.parametrize(("split", "share"), [("fit", 0.70), ("prompts", 0.15), ("reference", 0.15)])
def test_shares_of_the_splits(split: str, share: float) -> None:
    """Within four standard deviations of a binomial: families of gender variants move as one."""
    count = len(data.concepts())
    assert len(CODES[split]) / count == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)


def test_at_least_3000_captioned_images() -> None:
    assert len(data.STYLES) * len(data.concepts()) >= 3000


@pytest.mark.parametrize(("one", "other"), [("man", "woman"), ("man", "person"), ("men", "women"), ("men", "people")])
def test_gender_variants_share_a_split(one: str, other: str) -> None:
    by_label = {c.label: c for c in data.concepts()}
    pairs = [(c, by_label.get(re.sub(rf"^{one}\b", other, c.label))) for c in data.concepts()]
    variants = [(a, b) for a, b in pairs if b is not None and a is not b]
    assert variants
    assert not [(a.label, b.label) for a, b in variants if a.split != b.split]


def test_the_shipped_splits_are_the_hash_of_the_label() -> None:
    assert {c.label: c.split for c in data.concepts()} == {c.label: data._split(c.label) for c in data.concepts()}


@pytest.mark.parametrize(
    ("label", "style", "caption"),
    [
        ("hot dog", "fluent", "fluent 3d emoji of a hot dog"),
        ("hot dog", "noto", "noto emoji of a hot dog"),
        ("owl", "noto", "noto emoji of an owl"),
        ("glasses", "fluent", "fluent 3d emoji of glasses"),
        ("flag: Japan", "noto", "noto emoji of the flag of japan"),
    ],
)
def test_captions_are_plain_words(label: str, style: str, caption: str) -> None:
    (concept,) = [c for c in data.concepts() if c.label == label]
    assert concept.caption(style) == caption


def test_captions_are_unique_and_lower_case() -> None:
    captions = [c.caption(style) for c in data.concepts() for style in data.STYLES]
    assert len(captions) == len(set(captions))
    assert all(caption == caption.lower() and "\n" not in caption and "  " not in caption for caption in captions)


def test_the_reference_is_every_reference_concept_in_both_styles() -> None:
    wanted = {(style, code) for style in data.STYLES for code in CODES["reference"]}
    assert set(members("images.zip")) == wanted
    assert len(members("images.zip")) == len(wanted)
    images, captions = data.reference_images()
    assert images.shape == (len(wanted), 3, data.SIZE, data.SIZE) and images.dtype == torch.uint8
    assert len(captions) == len(wanted)


def test_reference_pictures_stand_beside_their_own_captions() -> None:
    first = next(c for c in data.concepts() if c.split == "reference")
    images, captions = data.reference_images()
    assert captions[:2] == [first.caption(style) for style in data.STYLES]
    with zipfile.ZipFile(data.SHIPPED / "images.zip") as archive:
        own = data._stack(archive, [f"{style}/{first.code}.webp" for style in data.STYLES])
    assert torch.equal(images[:2], own)


def test_public_pictures_show_what_the_codec_may_learn() -> None:
    assert {code for _, code in members("public.zip")} <= CODES["fit"]
    assert {style for style, _ in members("public.zip")} == set(data.STYLES)
    assert data.public_images().shape == (len(members("public.zip")), 3, data.SIZE, data.SIZE)


@pytest.mark.parametrize(
    "images", [lambda: data.reference_images()[0], data.public_images], ids=["reference", "public"]
)
def test_pictures_are_different_and_on_white(images: object) -> None:
    pictures = images()  # type: ignore[operator]
    corners = pictures[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].float().mean((1, 2))
    assert (corners == 255).float().mean() > 0.9, "emoji lie on white ground; a few fill their square"
    assert len(pictures.flatten(1).unique(dim=0)) > 0.99 * len(pictures)


def test_what_ships_is_small() -> None:
    assert sum(path.stat().st_size for path in data.SHIPPED.rglob("*") if path.is_file()) <= 6 * MEGABYTE


def test_without_the_training_set_the_message_says_how_to_make_it(cache: Path) -> None:
    data.full_set.cache_clear()
    with pytest.raises(UserError, match="make data MODALITY=image") as caught:
        data.training_images()
    assert str(cache) in str(caught.value) and "\n" not in str(caught.value)
