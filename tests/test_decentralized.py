"""Decentralized attribution: keys, copies, and what the paper counts."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from bench.__main__ import app
from bench.protocol import Codec, Scheme, UserError
from bench.rng import stream
from schemes import load_codec
from schemes.decentralized import DecentralizedAttribution, KeyTuning, attributed, reachable, trained_keys
from schemes.posthoc import Additive, PostHoc
from tests.test_weight_modulation import PaintGenerator
from tests.toy import Toy

TUNING = KeyTuning(steps=100, rate=3e-3, psnr_db=22.0, pool=16)
SCHEME = DecentralizedAttribution(bits=4, key_steps=300, key_rate=1e-3, margin=0.25, authentic=64, tuning=TUNING)

COMMAND = (
    "attributability",
    "--modality",
    "tests.toy:Toy",
    "--generator",
    "tests.test_weight_modulation:PaintGenerator",
)


@pytest.fixture(scope="module")
def paint() -> PaintGenerator:
    return PaintGenerator()


@pytest.fixture(scope="module")
def codec(paint: PaintGenerator) -> Any:
    return SCHEME.fit(Toy(), paint, stream(0))


def tensors(decoder: Any) -> Tensor:
    return torch.cat([value.flatten() for value in decoder.state_dict().values()])


def test_keys_are_orthonormal_and_authentic_content_is_on_their_near_side(codec: Any, paint: PaintGenerator) -> None:
    assert torch.allclose(codec.keys @ codec.keys.T, torch.eye(4), atol=2e-3), "half precision"
    content = Toy().soft_release(paint.decode(paint.decoder, paint.latents([""] * 64, stream(7))))
    assert float((codec.projections(content) > 0).float().mean()) > 0.99
    assert float(codec.about["authentic_side"]) > 0.99


def test_a_key_minimises_its_hinge_loss() -> None:
    content = 0.5 + 0.1 * torch.randn(64, 48, generator=stream(0))
    spec = DecentralizedAttribution(bits=3, key_steps=0, margin=1.0)
    untrained, trained = (
        trained_keys(content, each, stream(1))
        for each in (spec, DecentralizedAttribution(bits=3, key_steps=200, key_rate=1e-2, margin=1.0))
    )
    loss = [float((1 - content @ keys.T).clamp_min(0).mean()) for keys in (untrained, trained)]
    assert loss[1] < 0.2 * loss[0]
    assert torch.allclose(trained @ trained.T, torch.eye(3), atol=1e-5)


def test_attributed_items_are_those_counted_by_hand() -> None:
    """User 0: of four items one is on the near side of its key, one on the far side of another's. User 2: all right."""
    projections = torch.tensor([[-1.0, 1, 1], [-0.1, 2, 3], [0.5, 1, 1], [-1.0, 1, -0.2], [1.0, 1, -1], [0.3, 0.1, -4]])
    found = attributed(projections, torch.tensor([0, 0, 0, 0, 2, 2]))
    assert found.tolist() == [True, True, False, False, True, True]
    assert not attributed(torch.zeros(2, 3), torch.tensor([0, 1])).any(), "a tie is wrong"


def test_copies_of_single_keys_are_attributed_and_the_public_decoder_is_not(codec: Any, paint: PaintGenerator) -> None:
    judged = codec.judged(3, 16, stream(3))
    assert judged.users.tolist() == [user for user in range(3) for _ in range(16)]
    assert judged.attributed.double().mean() > 0.9 and (judged.far | ~judged.attributed).all()
    assert (judged.far.double() + judged.near.double()).mean() / 2 > 0.95
    psnr = -20 * (judged.shift.mean() / 768**0.5).log10()
    assert float(psnr) > 20
    plain = codec.projections(Toy().soft_release(paint.decode(paint.decoder, paint.latents([""] * 16, stream(3)))))
    assert attributed(plain, torch.arange(4).repeat_interleave(4)).double().mean() < 0.1
    with pytest.raises(UserError, match=r"^users: expected at most 4, one for each key, found 5$"):
        codec.judged(5, 1, stream(3))


def test_robust_training_is_of_distorted_content(codec: Any, paint: PaintGenerator) -> None:
    robust = replace(codec, about=codec.about | {"tuning": json.dumps(asdict(replace(TUNING, augment=True)))})
    plain, distorted = (each.modulate(paint.decoder, torch.tensor([1, 0, 0, 0])) for each in (codec, robust))
    assert not torch.equal(tensors(plain), tensors(distorted))


def test_the_command_tells_what_the_codec_judges(codec: Any, tmp_path: Path) -> None:
    path = tmp_path / "keys.safetensors"
    codec.save(path)
    words = [*COMMAND, "--scheme", str(path), "--users", "3", "--items", "4"]
    plain, told = (CliRunner().invoke(app, [*words, *more]) for more in ((), ("--json",)))
    assert plain.exit_code == told.exit_code == 0, plain.output + told.output
    assert [line.split(" ")[0] for line in plain.stdout.splitlines()] == [
        "attributability",
        "distinguishability",
        "shift",
    ]
    assert all(line.endswith("n = 3 users x 4 items") for line in plain.stdout.splitlines())
    found = json.loads(told.stdout)
    judged = codec.judged(3, 4, stream(0, "attributability", "keys"))
    assert found["attributability"]["mean"] == float(judged.attributed.double().mean())
    assert found["shift"]["lo"] <= float(judged.shift.mean()) <= found["shift"]["hi"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("--scheme", "additive-codec"),
            "scheme additive: expected a scheme of keys such as decentralized, found PostHocCodec",
        ),
        (("--users", "0"), "users: expected 1 to 100000, found 0"),
        (("--scheme", "gone.safetensors"), "codec gone.safetensors: expected a file, found none"),
    ],
)
def test_other_codecs_are_refused(words: tuple[str, str], line: str, tmp_path: Path) -> None:
    if words[1] == "additive-codec":
        PostHoc(Additive(), bits=4).fit(Toy(), PaintGenerator(), stream(0)).save(tmp_path / "additive.safetensors")
        words = ("--scheme", str(tmp_path / "additive.safetensors"))
    result = CliRunner().invoke(app, [*COMMAND, *words])
    assert result.exit_code == 2 and result.stderr == f"error: {line}\n"


def test_a_copy_carries_any_code_under_the_contract(codec: Any, paint: PaintGenerator, tmp_path: Path) -> None:
    assert (SCHEME.bits, codec.bits, codec.removable) == (4, 4, False) and codec.fit_seconds >= 0
    assert isinstance(codec, Codec) and isinstance(SCHEME, Scheme)
    word, before, modality = torch.tensor([1, 0, 1, 1]), tensors(paint.decoder), Toy()
    marked = codec.modulate(paint.decoder, word)
    assert list(marked.state_dict()) == list(paint.decoder.state_dict())
    assert torch.equal(tensors(paint.decoder), before) and not any(p.requires_grad for p in marked.parameters())
    latents = paint.latents([""] * 32, stream(1))
    content = modality.release(paint.decode(marked, latents))
    soft = codec.read(modality.observe(content))
    assert float(((soft > 0) == (word > 0)).float().mean()) > 0.9
    codec.save(tmp_path / "codec.safetensors")
    again: Any = load_codec(tmp_path / "codec.safetensors", modality, paint)
    assert torch.equal(again.read(modality.observe(content)), soft)
    assert torch.equal(tensors(again.modulate(paint.decoder, word)), tensors(marked))


def test_what_has_no_key_is_refused(codec: Any, paint: PaintGenerator) -> None:
    with pytest.raises(UserError, match=r"^fingerprint: expected 4 values of 0 or 1, found"):
        codec.modulate(paint.decoder, torch.tensor([1, 0]))
    with pytest.raises(UserError, match=r"^bits: expected at most 128, the probes or the size of an item, found 129$"):
        DecentralizedAttribution(bits=129, authentic=4).fit(Toy(), paint, stream(0))


def test_keys_lie_where_the_decoder_reaches(paint: PaintGenerator) -> None:
    """A decoder whose last bias alone has any effect can move content by three constant colours, and no further."""
    modality, generator = Toy(), PaintGenerator()
    weight, bias = (generator.decoder.get_parameter(name) for name in ("8.weight", "8.bias"))
    with torch.no_grad():
        weight.zero_()
        bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    basis = reachable(modality, generator, generator.latents([""] * 4, stream(0)), 12, stream(1))
    assert basis.shape == (12, 768) and torch.allclose(basis @ basis.T, torch.eye(12), atol=1e-4)
    colours = torch.eye(3).repeat_interleave(256, 1) / 16
    assert torch.allclose((colours @ basis[:3].T).square().sum(1), torch.ones(3), atol=1e-3)
