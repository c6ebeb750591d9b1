"""The comparison of formats of the embedded 3D generator: both train, decode and are judged alike."""

from __future__ import annotations

import pytest
import torch

from bench.rng import fenced, stream
from modalities.shape3d import data
from modalities.shape3d.formats import GridFormat, ShapEFormat, judged, trained


@pytest.mark.parametrize("kind", [GridFormat, ShapEFormat])
def test_both_formats_learn_and_decode(kind: type[GridFormat] | type[ShapEFormat]) -> None:
    fields, chosen = data.shipped("fit")
    with fenced(0):
        model = kind()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        loss = model.loss(model.encode(fields[:4]), fields[:4], stream(0, "points"))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0], losses
    with torch.no_grad():
        assert model.decode(model.encode(fields[:2])).shape == (2, 4, 32, 32, 32)
    assert judged(model, fields[:8], [part for part, _ in chosen[:8]], "some").endswith("(n = 8)")


def test_training_stops_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    fields, chosen = data.shipped("fit")
    monkeypatch.setattr(data, "rows_of", lambda splits: list(range(len(chosen))))
    monkeypatch.setattr(data, "fields", lambda rows, colours: fields[rows])
    with fenced(0):
        model, steps = trained(GridFormat(), 1.0, 0)
    assert steps >= 1 and all(bool(parameter.isfinite().all()) for parameter in model.parameters())
