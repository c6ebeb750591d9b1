"""Error-correcting codes, classical marks behind the decoder, and the white-box embedding."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.protocol import Codec, UserError
from bench.rng import stream
from bench.weights import effective_weight, set_effective_weight
from schemes import SCHEMES, load_codec
from schemes.coding import BCH, CODES, ErrorCorrected, Repetition
from schemes.encoder import HiDDeN
from schemes.hardening import Hardening
from schemes.posthoc import Additive, HaarCosine, PostHoc
from schemes.stable_signature import StableSignature, Tuning, whitening
from schemes.training import Recipe
from schemes.uchida import Uchida
from schemes.weight_modulation import WeightModulation, decoder_digest
from schemes.white_box import WhiteBox
from tests.test_weight_modulation import READER, SHORT, PaintGenerator
from tests.toy import Toy

MARKS = [Additive(), HaarCosine(side=4)]


def payloads(count: int, bits: int) -> Tensor:
    return torch.randint(2, (count, bits), generator=stream(0, "payload", bits))


# --- codes


@pytest.mark.parametrize("code", [Repetition(8, 3), BCH(), BCH(7, 15, 7)], ids=repr)
def test_a_code_word_is_read_back(code: Any) -> None:
    if isinstance(code, BCH):
        pytest.importorskip("galois")
    words = payloads(8, code.payload)
    sent = torch.stack([code.encode(word) for word in words])
    assert sent.shape == (8, code.length) and set(sent.unique().tolist()) <= {0, 1}
    assert torch.equal((code.decode(2.0 * sent - 1) > 0).long(), words)


def test_bch_corrects_what_it_promises_and_soft_reading_more() -> None:
    """BCH(63, 36) corrects 5 errors; the flips of the four least certain bits correct up to four more."""
    pytest.importorskip("galois")
    code, words = BCH(), payloads(6, 32)
    sent = 2.0 * torch.stack([code.encode(word) for word in words]) - 1
    for errors, certainty in ((5, 1.0), (8, 0.1)):
        soft = sent.clone()
        for row in range(len(soft)):
            wrong = torch.randperm(code.length, generator=stream(row))[:errors]
            soft[row, wrong] *= -certainty
        assert torch.equal((code.decode(soft) > 0).long(), words)


def test_where_no_code_word_is_near_the_bits_stay_as_they_are() -> None:
    pytest.importorskip("galois")
    code = BCH()
    soft = torch.randn(16, code.length, generator=stream(3))
    read = code.decode(soft)
    kept = (read == soft[:, :32]).all(1)
    assert bool(read.isfinite().all())
    assert 0 < int(kept.sum()) < 16, kept


def test_a_certain_word_counts_more_when_items_are_pooled() -> None:
    pytest.importorskip("galois")
    code, word = BCH(), payloads(1, 32)[0]
    sent = 2.0 * code.encode(word)[None] - 1
    wrong = sent.clone()
    wrong[:, :4] *= -1
    assert bool((code.decode(sent).abs() > code.decode(wrong).abs()).all())


def test_repetition_sums() -> None:
    assert torch.equal(Repetition(2, 2).decode(torch.tensor([[1.0, -3, 0.5, 1]])), torch.tensor([[1.5, -2.0]]))


def test_a_scheme_behind_a_code_fits_saves_and_loads(tmp_path: Path) -> None:
    paint = PaintGenerator()
    recipe = dataclasses.replace(SHORT, steps=2, batch=4, pool=8)
    scheme = ErrorCorrected(WeightModulation(bits=6, recipe=recipe, reader=READER), Repetition(3, 2))
    codec = scheme.fit(Toy(), paint, stream(0))
    assert isinstance(codec, Codec) and (scheme.bits, codec.bits, codec.removable) == (3, 3, False)
    path = tmp_path / "codec.safetensors"
    codec.save(path)
    again = load_codec(path, Toy(), paint)
    x, word = torch.rand(2, 3, 16, 16, generator=stream(0)), torch.tensor([1, 0, 1])
    assert again.bits == 3 and torch.equal(again.read(x), codec.read(x))
    inner = codec.inner.modulate(paint.decoder, torch.tensor([1, 0, 1, 1, 0, 1]))
    assert decoder_digest(again.modulate(paint.decoder, word)) == decoder_digest(inner)
    with pytest.raises(UserError, match=r"^fingerprint: expected 3 values of 0 or 1, found"):
        codec.modulate(paint.decoder, torch.tensor([1, 0]))


def test_a_code_of_another_length_than_the_scheme_is_refused() -> None:
    with pytest.raises(UserError, match=r"^scheme: expected 64 bits, as the code writes, found 32$"):
        ErrorCorrected(WeightModulation(recipe=Recipe()), Repetition()).fit(Toy(), PaintGenerator(), stream(0))


def test_every_code_has_a_scheme_with_as_many_bits() -> None:
    for name in CODES:
        scheme = SCHEMES[f"wouaf-{name.lower()}"]
        assert isinstance(scheme, ErrorCorrected) and scheme.scheme.bits == scheme.code.length
        assert scheme.bits == 32


# --- marks behind the decoder


@pytest.mark.parametrize("mark", MARKS, ids=repr)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_mark_is_read_in_every_rank_and_by_its_key_only(mark: Any, rank: int) -> None:
    shape = {1: (1, 2050), 2: (3, 33, 32), 3: (1, 16, 18, 16)}[rank]
    x = torch.rand(6, *shape, generator=stream(0, rank)) * 0.1 + 0.5
    code = payloads(1, 8)[0] * 2.0 - 1
    strength = 0.05 if isinstance(mark, Additive) else 0.4
    marked = mark.embed(x, code, strength, 1)
    assert marked.shape == x.shape and 0 < float((marked - x).square().mean().sqrt()) < 0.15
    assert torch.equal(mark.extract(marked, 8, strength, 1) > 0, (code > 0).expand(6, -1))
    other = (mark.extract(marked, 8, strength, 2) > 0) == (code > 0)
    assert 0.1 < float(other.float().mean()) < 0.9


def test_the_additive_mark_is_read_from_any_window_that_readers_of_clips_take() -> None:
    noise = torch.randn(3, 1, 32768, generator=stream(0, "clips"))
    code = torch.randint(2, (32,), generator=stream(0, "code")) * 2.0 - 1
    marked = Additive().embed(0.1 * noise, code, 0.02, 1)
    for start in (0, 2048, 14336):
        read = Additive().extract(marked[..., start : start + 16384], 32, 0.02, 1)
        assert float(((read > 0) == (code > 0)).float().mean()) > 0.95
    between = Additive().extract(marked[..., 1000 : 1000 + 16384], 32, 0.02, 1)
    assert float(((between > 0) == (code > 0)).float().mean()) < 0.8, "no other window tells"


def test_the_additive_mark_has_the_power_it_says() -> None:
    x = torch.rand(2, 3, 64, 64, generator=stream(0))
    code = payloads(1, 32)[0] * 2.0 - 1
    assert float((Additive().embed(x, code, 0.03, 1) - x).square().mean().sqrt()) == pytest.approx(0.03, rel=0.05)


def test_quantised_coefficients_bear_noise_below_a_quarter_step_and_pass_the_gradient() -> None:
    x = torch.rand(2, 3, 32, 32, generator=stream(0)).requires_grad_()
    mark, code = HaarCosine(), payloads(1, 8)[0] * 2.0 - 1
    marked = mark.embed(x, code, 0.5, 1)
    (grad,) = torch.autograd.grad(marked.sum(), x)
    assert torch.equal(grad, torch.ones_like(x))
    kernel = mark._kernel(x)
    assert float(kernel[0].norm()) == pytest.approx(1, rel=1e-5)
    again = mark.embed(marked.detach(), code, 0.5, 1)
    assert torch.allclose(again, marked, atol=1e-4), "already on the lattice"


def test_the_haar_cosine_pattern_is_that_of_pixels_through_both_transforms() -> None:
    """Haar approximation, then the DCT coefficient of scipy, of one block."""
    from scipy.fft import dctn

    x = torch.rand(1, 1, 8, 8, generator=stream(0), dtype=torch.float64)
    low = (x[..., ::2, :] + x[..., 1::2, :]) / 2**0.5
    low = (low[..., ::2] + low[..., 1::2]) / 2**0.5
    expected = dctn(low[0, 0].numpy(), norm="ortho")[1, 1]
    assert float((x * HaarCosine()._kernel(x)).sum()) == pytest.approx(float(expected), rel=1e-6)


def test_more_bits_than_blocks_are_refused() -> None:
    with pytest.raises(UserError, match=r"^mark: expected at least 32 blocks, found 12$"):
        HaarCosine().extract(torch.rand(1, 3, 16, 16, generator=stream(0)), 32, 0.1, 1)


@pytest.mark.parametrize("mark", MARKS, ids=repr)
def test_a_post_hoc_codec_marks_at_the_asked_fidelity_and_is_removable(mark: Any, tmp_path: Path) -> None:
    paint, modality = PaintGenerator(), Toy()
    codec = PostHoc(mark, bits=4, psnr_db=26.0, pool=16).fit(modality, paint, stream(0))
    assert isinstance(codec, Codec) and codec.removable and codec.bits == 4
    code = torch.tensor([1, 0, 1, 1])
    marked = codec.modulate(paint.decoder, code)
    assert decoder_digest(marked) == decoder_digest(paint.decoder), "the weights know nothing"
    latents = paint.latents([""] * 64, stream(1))
    original, changed = (modality.release(paint.decode(each, latents)) for each in (paint.decoder, marked))
    psnr = modality.paired(original, changed)["psnr"].mean()
    assert float(psnr) == pytest.approx(26.0, abs=1.5)
    right = (codec.read(modality.observe(changed)) > 0) == (code > 0)
    assert float(right.float().mean()) > 0.85
    codec.save(tmp_path / "codec.safetensors")
    again = load_codec(tmp_path / "codec.safetensors", modality, paint)
    assert torch.equal(again.read(modality.observe(changed)), codec.read(modality.observe(changed)))
    with pytest.raises(UserError, match=r"^fingerprint: expected 4 values of 0 or 1, found"):
        codec.modulate(paint.decoder, torch.tensor([1, 0, 2, 1]))


# --- trained baselines

QUICK = dataclasses.replace(SHORT, steps=2, batch=4, pool=8)


def tensors(decoder: Any) -> Tensor:
    return torch.cat([value.flatten() for value in decoder.state_dict().values()])


def test_an_encoder_marks_behind_the_decoder_as_it_is_trained(tmp_path: Path) -> None:
    paint, words = PaintGenerator(), payloads(3, 4)
    codec: Any = WeightModulation(HiDDeN(8, 2), 4, QUICK, READER).fit(Toy(), paint, stream(0))
    latents = paint.latents([""] * 3, stream(1))
    with torch.no_grad(), codec.modulator.applied(paint.decoder, 2.0 * words - 1):
        batched = paint.decode(paint.decoder, latents)
    copies = [codec.modulate(paint.decoder, word) for word in words]
    each = torch.cat([paint.decode(copy, latents[i : i + 1]) for i, copy in enumerate(copies)])
    plain = paint.decode(paint.decoder, latents)
    assert torch.allclose(batched, each, atol=0.02), "of one item and of three, the spread differs a little"
    assert codec.removable and torch.equal(tensors(copies[0]), tensors(paint.decoder))
    assert not torch.allclose(each, plain) and not torch.equal(paint.decode(copies[1], latents), each)
    codec.save(tmp_path / "codec.safetensors")
    again = load_codec(tmp_path / "codec.safetensors", Toy(), paint)
    assert torch.equal(paint.decode(again.modulate(paint.decoder, words[0]), latents), paint.decode(copies[0], latents))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_an_encoder_starts_quiet_and_trains_in_every_rank(rank: int) -> None:
    layer = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[rank]
    encoder: Any = HiDDeN(8, 2).bind(torch.nn.Sequential(layer(4, 2, 3)), 4, stream(0))
    x = 5 * torch.randn(3, 2, *[6] * rank, generator=stream(0))
    marked = encoder(x, 2.0 * payloads(3, 4) - 1)
    assert 0 < float(((marked - x).std() / x.std()).detach()) < 0.2
    marked.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in encoder.parameters())


def test_an_encoder_needs_places_and_no_hardening_of_weights() -> None:
    with pytest.raises(UserError, match=r"^decoder Linear: expected a convolution as its last layer, found none$"):
        HiDDeN().bind(torch.nn.Linear(3, 3), 4, stream(0))
    recipe = dataclasses.replace(QUICK, hardening=Hardening(weight_noise=0.1))
    with pytest.raises(UserError, match=r"^hardening: expected a modulation of weights, found HiDDeN$"):
        WeightModulation(HiDDeN(), 4, recipe, READER).fit(Toy(), PaintGenerator(), stream(0))


def test_whitened_bits_of_unmarked_content_are_uncorrelated() -> None:
    mixed = torch.eye(4) + 0.3 * torch.rand(4, 4, generator=stream(1))
    soft = torch.randn(500, 4, generator=stream(0)) @ mixed + 2
    mean, matrix = whitening(soft)
    white = (soft - mean) @ matrix.T
    assert torch.allclose(torch.cov(white.T), torch.eye(4), atol=0.05) and float(white.mean().abs()) < 1e-3


def test_stable_signature_tunes_a_copy_until_its_code_is_read(tmp_path: Path) -> None:
    paint, modality = PaintGenerator(), Toy()
    extractor = WeightModulation(HiDDeN(8, 2), 4, dataclasses.replace(QUICK, steps=45, pool=64), READER)
    scheme = StableSignature(extractor, Tuning(steps=25, rate=5e-3, bit_weight=3.0, pool=8))
    codec = scheme.fit(modality, paint, stream(0))
    assert isinstance(codec, Codec) and (scheme.bits, codec.bits, codec.removable) == (4, 4, False)
    word, before = torch.tensor([1, 0, 1, 1]), tensors(paint.decoder)
    marked = codec.modulate(paint.decoder, word)
    assert list(marked.state_dict()) == list(paint.decoder.state_dict())
    assert torch.equal(tensors(paint.decoder), before) and not any(p.requires_grad for p in marked.parameters())
    latents = paint.latents([""] * 32, stream(1))
    soft = [codec.read(modality.soft_release(paint.decode(each, latents))) for each in (paint.decoder, marked)]
    right = [float(((each > 0) == (word > 0)).float().mean()) for each in soft]
    assert right[1] > max(0.85, right[0]), "on latents it was not tuned on"
    codec.save(tmp_path / "codec.safetensors")
    again = load_codec(tmp_path / "codec.safetensors", modality, paint)
    assert torch.equal(tensors(again.modulate(paint.decoder, word)), tensors(marked))


# --- white box


def test_uchida_is_read_from_weights_and_content_tells_nothing(tmp_path: Path) -> None:
    paint = PaintGenerator()
    codec = Uchida(bits=16).fit(Toy(), paint, stream(0))
    assert isinstance(codec, Codec) and isinstance(codec, WhiteBox) and not codec.removable
    word = payloads(1, 16)[0]
    marked = codec.modulate(paint.decoder, word)
    assert list(marked.state_dict()) == list(paint.decoder.state_dict())
    soft = codec.read_weights(marked, paint.decoder)
    assert torch.equal((soft > 0).long(), word) and float(soft.abs().min()) > 0.5
    public = (codec.read_weights(paint.decoder, paint.decoder) > 0).long() == word
    assert 0.1 < float(public.float().mean()) < 0.9
    assert torch.equal(codec.read(torch.rand(2, 3, 16, 16, generator=stream(0))), torch.zeros(2, 16))
    codec.save(tmp_path / "codec.safetensors")
    again: Any = load_codec(tmp_path / "codec.safetensors", Toy(), paint)
    assert torch.equal(again.read_weights(marked, paint.decoder), soft)


def test_uchida_survives_small_weight_noise() -> None:
    paint = PaintGenerator()
    codec, word = Uchida(bits=8).fit(Toy(), paint, stream(0)), payloads(1, 8)[0]
    marked = codec.modulate(paint.decoder, word)
    layer = marked.get_submodule(codec.layer)
    weight = effective_weight(layer).detach()
    noise = 0.05 * weight.std() * torch.randn(weight.shape, generator=stream(0))
    set_effective_weight(layer, weight + noise)
    assert torch.equal((codec.read_weights(marked, paint.decoder) > 0).long(), word)


def test_uchida_has_as_many_bits_as_a_filter_has_values() -> None:
    with pytest.raises(UserError, match=r"^bits: expected at most \d+, the size of a filter, found 9999$"):
        Uchida(bits=9999).fit(Toy(), PaintGenerator(), stream(0))
