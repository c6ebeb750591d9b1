"""Coalitions: what each merge does to every entry, what mixing content does, and what theory expects of a majority."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks import ATTACKS
from attacks.coalition import (
    AverageWeights,
    ExtrapolatedWeights,
    MaximumWeights,
    MedianWeights,
    MinimumWeights,
    MixedLayers,
    MixedParameters,
    TIESMerge,
)
from attacks.coalition_content import OutputAverage, OutputMedian, OutputMidrange, OutputMosaic
from bench.coalitions import ContentCoalition, InformedCoalition
from bench.metrics.attribution import own_matches
from bench.metrics.collusion import expected_match
from bench.protocol import Clips, CoalitionAttack, UserError
from bench.rng import stream
from bench.weights import other_parameters
from tests.decoders import LATENTS, PUBLIC, attacker, contract, decoder, weights

TEAM = [decoder("user", index) for index in range(5)]
WEIGHTS = [f.name for f in ATTACKS.values() if f.target == "coalition" and "output" not in f.name]
for _index, _member in enumerate(TEAM):
    _member.get_submodule("4").running_mean.add_(0.3 * _index)  # type: ignore[union-attr, operator]
    _member.get_submodule("4").num_batches_tracked.fill_(7)  # type: ignore[union-attr, operator]


def apply(attack: Any, team: list[nn.Module]) -> nn.Module:
    if isinstance(attack, InformedCoalition):
        return attack.merge(team, attacker(), stream(0))
    merged: nn.Module = attack(team, stream(0))
    return merged


@pytest.mark.parametrize("users", [2, 5])
@pytest.mark.parametrize("name", WEIGHTS)
def test_coalition_attack_contract(name: str, users: int) -> None:
    attack: Any = ATTACKS[name].make(users)
    assert isinstance(attack, CoalitionAttack | InformedCoalition) and attack.users == users
    assert not isinstance(attack, ContentCoalition)
    team = TEAM[:users]
    if name == "mixed-layers":  # some layer is the first member's
        before = [{key: value.clone() for key, value in member.state_dict().items()} for member in team]
        once, again = apply(attack, team).state_dict(), apply(attack, team).state_dict()
        assert list(once) == list(before[0]) and all(torch.equal(value, again[key]) for key, value in once.items())
        assert all(
            torch.equal(v, old[k]) for m, old in zip(team, before, strict=True) for k, v in m.state_dict().items()
        )
    else:
        contract(team[-1], lambda: apply(attack, team))
        contract(team[0], lambda: apply(attack, team))


def stacked(team: list[nn.Module]) -> dict[str, Tensor]:
    """Everything that is merged, by name: (users, ...)."""
    held = [weights(m) | {**other_parameters(m), **dict(m.named_buffers())} for m in team]
    return {name: torch.stack([each[name] for each in held]) for name in held[0] if held[0][name].is_floating_point()}


def merged(attack: Any, team: list[nn.Module]) -> dict[str, Tensor]:
    return {name: entries[0] for name, entries in stacked([apply(attack, team)]).items()}


RULES: list[tuple[Any, Callable[[Tensor], Tensor]]] = [
    (AverageWeights(5), lambda e: e.mean(0)),
    (MedianWeights(5), lambda e: e.median(0).values),
    (MedianWeights(4), lambda e: e.quantile(0.5, dim=0)),
    (MedianWeights(2), lambda e: e.mean(0)),
    (MinimumWeights(3), lambda e: e.amin(0)),
    (MaximumWeights(3), lambda e: e.amax(0)),
    (ExtrapolatedWeights(2, 1.5), lambda e: e[0] + 1.5 * (e[1] - e[0])),
    (ExtrapolatedWeights(4, 2.0), lambda e: e[0] + 2 * (e[1:].mean(0) - e[0])),
]


@pytest.mark.parametrize(("attack", "rule"), RULES, ids=[repr(attack) for attack, _ in RULES])
def test_every_entry_is_merged_as_the_label_says(attack: Any, rule: Callable[[Tensor], Tensor]) -> None:
    team = TEAM[: attack.users]
    found = merged(attack, team)
    for name, entries in stacked(team).items():
        assert torch.allclose(found[name], rule(entries), rtol=1e-4, atol=1e-5), name
    assert int(apply(attack, team).get_submodule("4").num_batches_tracked) == 7  # type: ignore[arg-type]


@pytest.mark.parametrize("users", [2, 3, 5])
def test_mixed_parameters_come_from_all_members_in_equal_shares(users: int) -> None:
    team, found = TEAM[:users], merged(MixedParameters(users), TEAM[:users])
    for name, entries in stacked(team).items():
        same = torch.isclose(entries, found[name][None], rtol=1e-4, atol=1e-6)
        assert same.any(0).all(), name
        if name == "3":
            assert same.flatten(1).float().mean(1).tolist() == pytest.approx([1 / users] * users, abs=0.03)


def test_mixed_layers_are_whole_and_from_several_members() -> None:
    found, donors = merged(MixedLayers(3), TEAM[:3]), []
    for name, entries in stacked(TEAM[:3]).items():
        same = [torch.allclose(each, found[name], rtol=1e-4, atol=1e-6) for each in entries]
        assert any(same), name
        donors += [same.index(True)] if sum(same) == 1 else []
    assert set(donors) == {0, 1, 2}


def ties(origin: Tensor, entries: Tensor, keep: float) -> Tensor:
    """Algorithm 1 of arXiv:2306.01708, entry by entry in plain Python."""
    changes = [(each - origin).flatten().tolist() for each in entries]
    count = max(1, round(keep * len(changes[0])))
    for change in changes:
        large = set(sorted(range(len(change)), key=lambda i: -abs(change[i]))[:count])
        change[:] = [value if i in large else 0.0 for i, value in enumerate(change)]
    out = []
    for values in zip(*changes, strict=True):
        sign = (sum(values) > 0) - (sum(values) < 0)
        agree = [value for value in values if value * sign > 0]
        out.append(sum(agree) / len(agree) if agree else 0.0)
    return origin + torch.tensor(out).view_as(origin)


@pytest.mark.parametrize("keep_ratio", [0.2, 1.0])
def test_ties_trims_elects_signs_and_averages_who_agrees(keep_ratio: float) -> None:
    found = merged(TIESMerge(3, keep_ratio), TEAM[:3])
    public = {**weights(PUBLIC), **other_parameters(PUBLIC)}
    for name in ("0", "6", "8", "8.bias"):
        expected = ties(public[name], stacked(TEAM[:3])[name], keep_ratio)
        assert torch.allclose(found[name], expected, rtol=1e-4, atol=1e-5), name
    if keep_ratio < 1:
        kept = (found["3"] - public["3"]).abs() > 1e-5
        assert 0.2 <= float(kept.float().mean()) <= 0.6


def test_a_team_of_another_size_or_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="2 decoders, expected 3"):
        apply(TIESMerge(3), TEAM[:2])
    with pytest.raises(ValueError, match=r"decoder 1 has 1 state-dict keys, expected the 2 of decoder 0; .* bias"):
        apply(MedianWeights(2), [nn.Linear(2, 2), nn.Linear(2, 2, bias=False)])
    with pytest.raises(UserError, match=r"expected a share of entries in \(0, 1\], found 0"):
        TIESMerge(3, 0)


IMAGES = [torch.randint(256, (4, 3, 17, 16), generator=stream(0, i), dtype=torch.uint8) for i in range(5)]
CLIPS = [
    Clips(torch.randint(-32768, 32768, (4, 1, 1001), generator=stream(1, i)).to(torch.int16), 16000) for i in range(5)
]
OUTPUTS: list[tuple[Any, Callable[[Tensor], Tensor]]] = [
    (OutputAverage(3), lambda e: e.mean(0)),
    (OutputAverage(2), lambda e: e.mean(0)),
    (OutputMedian(5), lambda e: e.median(0).values),
    (OutputMedian(4), lambda e: e.quantile(0.5, dim=0)),
    (OutputMidrange(5), lambda e: (e.amin(0) + e.amax(0)) / 2),
]


@pytest.mark.parametrize(("attack", "rule"), OUTPUTS, ids=[repr(attack) for attack, _ in OUTPUTS])
def test_outputs_are_mixed_sample_by_sample_in_their_format(attack: Any, rule: Callable[[Tensor], Tensor]) -> None:
    assert isinstance(attack, ContentCoalition) and not isinstance(attack, CoalitionAttack)
    before = [image.clone() for image in IMAGES]
    image = attack.mix(IMAGES[: attack.users], stream(0))
    clip = attack.mix(CLIPS[: attack.users], stream(0))
    assert image.dtype == torch.uint8 and clip.samples.dtype == torch.int16 and clip.rate_hz == 16000
    for found, parts in ((image, IMAGES), (clip.samples, [c.samples for c in CLIPS])):
        expected = rule(torch.stack(parts[: attack.users]).double())
        assert (found.double() - expected).abs().max() <= 0.501, "rounded to the nearest, and no wrap-around"
    assert all(torch.equal(a, b) for a, b in zip(IMAGES, before, strict=True))


def test_a_mosaic_is_made_of_whole_blocks_of_all_members() -> None:
    clip, again = (OutputMosaic(3, blocks=4).mix(CLIPS[:3], stream(0)).samples for _ in range(2))
    assert torch.equal(clip, again)
    owner = (torch.stack([c.samples for c in CLIPS[:3]]) == clip).float()  # (users, B, 1, T)
    assert owner.sum(0).min() >= 1
    borders = [i for i in range(1, 1001) if i * 4 // 1001 != (i - 1) * 4 // 1001]
    for block in torch.tensor_split(owner, borders, dim=3):
        assert (block.mean(3) == 1).any(0).all(), "each block is one member's"
    image = OutputMosaic(3).mix(IMAGES[:3], stream(0))
    shares = (torch.stack(IMAGES[:3]) == image).float().mean((1, 2, 3, 4))
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.1)


def test_what_does_not_align_is_refused() -> None:
    meshes: list[Any] = [["mesh"], ["mesh"]]
    with pytest.raises(UserError, match=r"OutputAverage\(users=2\): expected images or clips, found list"):
        OutputAverage(2).mix(meshes, stream(0))
    with pytest.raises(UserError, match="expected the content of 2 users, found that of 1"):
        OutputMedian(2).mix(IMAGES[:1], stream(0))
    with pytest.raises(UserError, match=r"expected content of one shape \(4, 3, 17, 16\), found \(4, 3, 17, 15\), too"):
        OutputMidrange(2).mix([IMAGES[0], IMAGES[0][..., 1:]], stream(0))


def test_expected_matches_are_those_of_the_notes_and_of_a_vote() -> None:
    """The coalition of c outvotes a member with the probability that theory says; ties are tossed."""
    assert [expected_match(c) for c in (1, 2, 3, 4, 5)] == [1, 0.75, 0.75, 0.6875, 0.6875]
    assert [round(expected_match(c), 3) for c in (8, 10, 20)] == [0.637, 0.623, 0.588]
    for colluders in (2, 3, 4, 7):
        codes = torch.randint(2, (colluders, 200_000), generator=stream(0, colluders))
        votes = (2.0 * codes - 1).sum(0) + 0.1 * (2 * torch.rand(200_000, generator=stream(1, colluders)) - 1)
        share = float(own_matches(votes[None], codes[0])[0]) / 200_000
        assert share == pytest.approx(expected_match(colluders), abs=0.005)
    with pytest.raises(ValueError, match="0 colluders, expected at least 1"):
        expected_match(0)


def test_the_toys_can_tell_members_apart() -> None:
    assert all((TEAM[i](LATENTS) - TEAM[0](LATENTS)).abs().max() > 0.05 for i in range(1, 5))
