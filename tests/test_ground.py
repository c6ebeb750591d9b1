"""Where in a picture a code is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import typer
from torch import Tensor, nn

from modalities.image.ground import main, parts


@dataclass(frozen=True)
class Corners:
    """Two bits: whether the ground's corner is tinted, and whether the drawing's corner is dark."""

    bits: int = 2
    removable: bool = False

    def modulate(self, decoder: nn.Module, fingerprint: Tensor) -> nn.Module:
        return decoder

    def read(self, tensor: Tensor) -> Tensor:
        return torch.stack([0.99 - tensor[:, 0, 0, 0], 0.25 - tensor[:, 0, -1, -1]], 1)


def test_each_bit_is_found_where_it_was_written() -> None:
    public = torch.ones(2, 3, 8, 8)
    public[:, :, 4:] = 0.5
    codes = torch.tensor([[1, 1], [0, 1]])
    marked = public.clone()
    marked[0, :, 0, 0] = 0.97  # the ground of the first, which is white in the other
    marked[:, :, -1, -1] = 0.0
    found = parts(Corners(), marked, public, codes)
    assert found.whole.tolist() == [1.0, 1.0]
    assert found.drawn.tolist() == [0.5, 1.0], "the first bit of the first item is in its ground"
    assert found.ground.tolist() == [0.5, 0.5], "the second bit is in the drawing"
    assert found.tinted.tolist() == [1 / 32, 0.0]


@pytest.mark.parametrize("name", ["missing.safetensors", "text.safetensors"])
def test_what_is_no_codec_is_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / "text.safetensors").write_text("no codec")
    with pytest.raises(typer.Exit) as raised:
        main([tmp_path / name], users=2)
    assert raised.value.exit_code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and name in line
