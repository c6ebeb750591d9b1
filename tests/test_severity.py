"""The common scale of attack strengths."""

from __future__ import annotations

import pytest

from attacks import ATTACKS
from bench.protocol import AttackFamily, UserError


@pytest.mark.parametrize("family", ATTACKS.values(), ids=lambda family: family.name)
def test_severities_span_the_grid_in_its_order(family: AttackFamily) -> None:
    places = [family.strengths.index(family.severity(level)) for level in range(1, 6)]
    assert places == sorted(places) and places[0] == 0 and places[-1] == len(family.strengths) - 1
    if len(family.strengths) == 5:
        assert places == [0, 1, 2, 3, 4]
    for level in (0, 6):
        with pytest.raises(UserError, match=f"^severity: expected 1 to 5, found {level}$"):
            family.severity(level)
