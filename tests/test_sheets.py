"""Comparison sheets: what each modality shows, and that a modality which shows nothing has none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.image import imread
from torch import Tensor

from bench.figures import sheet
from bench.protocol import Clips
from bench.rng import stream
from bench.samples import Pictured, write_sheets
from modalities.audio import Audio
from modalities.image import Image
from tests.clips import tone
from tests.conftest import PLAN, Bench
from tests.toy import Toy, ToyAverage, ToyNoise, ToyWeightNoise

VIRIDIS = {tuple(colour): index for index, colour in enumerate(colormaps["viridis"](np.arange(256), bytes=True)[:, :3])}


ATTACKS: tuple[Any, ...] = (ToyAverage(), ToyNoise(), ToyWeightNoise())


class Unseen(Toy):
    """A modality that does not say how its items look."""

    picture: Any = None


def pictures(count: int, side: int = 8) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=stream(0, "pictures", count)).byte()


def levels_db(picture: Tensor) -> Tensor:
    """(128, 128) dB relative to a full-scale sine, of one picture (3, 128, 128); low frequencies first."""
    places = [VIRIDIS[tuple(colour)] for colour in picture.permute(1, 2, 0).reshape(-1, 3).tolist()]
    return (torch.tensor(places).view(128, 128) / 255 * 80 - 80).flip(0)


@pytest.mark.parametrize("modality", [Image(), Audio(), Toy()], ids=lambda modality: modality.name)
def test_every_modality_has_pictures_of_its_items(modality: Any) -> None:
    assert issubclass(type(modality), Pictured)
    content = modality.reference()[:3]
    shown = modality.picture(content)
    assert shown.shape[:2] == (3, 3) and shown.dtype == torch.uint8
    assert torch.equal(modality.picture(content[1:2]), shown[1:2]), "an item looks the same in any batch"
    name, change = modality.difference(content, content)
    modality.check(change)
    assert name.startswith("difference") and len(modality.picture(change).flatten(1).unique(dim=0)) == 1


# Sheets


def test_a_sheet_shows_the_pixels_of_every_row(tmp_path: Path) -> None:
    rows = {"one": torch.full((2, 3, 8, 8), 100).byte(), "two": torch.full((2, 3, 4, 9), 30).byte()}
    pixels = (imread(sheet(rows, tmp_path / "sheet.png"))[:, :, :3] * 255).round().astype(int)
    shown = {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0)}
    assert {(100, 100, 100), (30, 30, 30)} <= shown


def test_a_sheet_refuses_rows_of_unequal_length(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected rows of equal length, found \{'one': 2, 'two': 1\}"):
        sheet({"one": pictures(2), "two": pictures(1)}, tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())


def test_the_rows_of_a_run(toy: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[Path, dict[str, Tensor]] = {}
    monkeypatch.setattr("bench.figures.sheet", lambda rows, path: drawn.update({path: rows}) or path)
    (path,) = write_sheets(toy.modality, toy.generator, {"ToyScheme": toy.codec}, ATTACKS, PLAN, tmp_path)
    assert path == tmp_path / "figures" / "sheet_ToyScheme.png"
    original, marked, change, attacked = drawn[path].values()
    assert list(drawn[path]) == ["original", "fingerprinted", "difference", "ToyNoise(std=0.05)"]
    assert all(row.shape == (PLAN.users, 3, 16, 16) for row in drawn[path].values())
    assert torch.equal(change, toy.modality.difference(original, marked)[1])
    assert not torch.equal(original, marked) and not torch.equal(marked, attacked)


def test_no_sheet_without_pictures_or_attacks_on_content(
    toy: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.figures.sheet", lambda *_: pytest.fail("drawn"))
    on_models = [attack for attack in ATTACKS if attack.target != "content"]
    codecs = {"ToyScheme": toy.codec}
    assert write_sheets(toy.modality, toy.generator, codecs, on_models, PLAN, tmp_path) == []
    assert write_sheets(Unseen(), toy.generator, codecs, ATTACKS, PLAN, tmp_path) == []


# Pictures of images


def test_images_differ_ten_times_on_middle_grey() -> None:
    a = torch.full((1, 3, 16, 16), 100).byte()
    for step, shown in ((0, 128), (5, 178), (-5, 78), (50, 255), (-50, 0)):
        name, change = Image().difference(a, (a.int() + step).byte())
        assert name.split() == ["difference,", "10", "times"]
        assert change.dtype == torch.uint8 and change.unique().tolist() == [shown]
    assert Image().picture(a) is a


# Pictures of clips


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("hz", [220.0, 1000.0, 5000.0])
def test_a_tone_lies_at_its_height_and_level(hz: float, rate_hz: int) -> None:
    """0.4 of full scale is -8 dB; a band adds up the main lobe of the window, at most 1.8 dB more."""
    levels = levels_db(Audio().picture(tone(hz, 2.1, rate_hz))[0])[:, 8:-8]
    mel = hz / 200 * 3 if hz < 1000 else 15 + math.log(hz / 1000) / math.log(6.4) * 27  # Slaney's
    row = mel / (15 + math.log(8) / math.log(6.4) * 27) * 129 - 1  # 128 bands, the first one's centre at 1 / 129
    assert levels.argmax(0).float().mean() == pytest.approx(row, abs=1)
    assert levels.amax(0).mean() == pytest.approx(20 * math.log10(0.4), abs=2.0)
    assert levels[abs(torch.arange(128) - row) > 12].max() < -60


def test_quieter_is_darker_and_silence_darkest() -> None:
    loud = tone(1000.0, 2.1)
    quiet = Clips.from_unit(loud.unit() / 10, loud.rate_hz)
    peaks = [float(levels_db(Audio().picture(clips)[0]).max()) for clips in (loud, quiet)]
    assert peaks[0] - peaks[1] == pytest.approx(20, abs=0.4), "one range for all clips"
    silence = Clips(torch.zeros(1, 2, 4000, dtype=torch.int16), 8_000)
    assert levels_db(Audio().picture(silence)[0]).unique().tolist() == [-80]


def test_a_click_lies_at_its_time_and_short_clips_end_early() -> None:
    x = torch.zeros(1, 1, 16_000)
    x[..., 8_000] = 0.5
    levels = levels_db(Audio().picture(Clips.from_unit(x, 16_000))[0])
    assert levels.mean(0).argmax() == pytest.approx(8_000 / 256, abs=1)
    assert levels[:, 40:].unique().tolist() == [-80]


def test_clips_differ_by_what_was_added() -> None:
    a = Clips(torch.tensor([[[100, -30_000, 30_000, 0]]]).short(), 16_000)
    b = Clips(torch.tensor([[[90, 30_000, -30_000, 0]]]).short(), 16_000)
    name, change = Audio().difference(a, b)
    assert (name, change.rate_hz, change.samples.dtype) == ("difference", 16_000, torch.int16)
    assert change.samples.flatten().tolist() == [-10, 32_767, -32_768, 0], "clipped, not wrapped around"
