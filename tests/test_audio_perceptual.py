"""Perception of sound: the speech embedding against its ONNX graph, VGGish and spectra against NumPy."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.signal.windows import hann
from torch import Tensor
from torch.nn import functional as F

from bench.folders import cache_folder
from bench.protocol import Clips, UserError
from bench.rng import stream
from modalities.audio import perceptual, pretrained
from modalities.audio.perceptual import SpeechEmbedding, VGGish, mono, speech_embedding, vggish_bank
from modalities.audio.spectra import amplitudes, mel_distance, stft_distance

SECONDS = torch.arange(32_768, dtype=torch.float64) / 16_000


def chirp() -> Tensor:
    """100 Hz to 3 kHz in two seconds, in 16-bit steps, (1, 32768)."""
    wave = torch.sin(2 * math.pi * (100 * SECONDS + 700 * SECONDS**2)) * 0.5
    return ((wave * 32768).round() / 32768).float()[None]


def noise(n: int, samples: int, *what: object) -> Tensor:
    return 0.1 * torch.randn(n, samples, generator=stream(0, "noise", *what))


def test_speech_embedding_golden_values() -> None:
    """As openWakeWord 0.4.0 computes them from the same 16-bit samples with onnxruntime."""
    found = speech_embedding()(chirp())[0]
    assert found.shape == (16, 96) and found.dtype == torch.float32
    assert found[0, :4].tolist() == pytest.approx([-5.6374, 19.6066, -9.7281, -13.2329], abs=2e-3)
    assert found[15, :4].tolist() == pytest.approx([-13.2673, 4.8618, 1.3599, -6.9285], abs=2e-3)
    assert (float(found.mean()), float(found.std(correction=0))) == pytest.approx((1.0688, 15.7015), abs=2e-3)


def test_speech_embedding_is_that_of_the_onnx_graphs() -> None:
    archive = cache_folder() / "packages" / "openwakeword-0.4.0"
    if not archive.is_file():
        pytest.skip("`make data MODALITY=audio` fetches the ONNX graphs")
    with zipfile.ZipFile(archive) as wheel:
        to_mel, to_embedding = (
            onnxruntime.InferenceSession(wheel.read(f"openwakeword/resources/models/{name}.onnx"))
            for name in ("melspectrogram", "embedding_model")
        )
        weights = pretrained.weights(wheel.read(pretrained.GRAPH))
    for wave in (chirp(), noise(1, 20_000), 1e-3 * chirp().flip(1)):
        (mel,) = to_mel.run(None, {"input": 32768 * wave.numpy()})
        mel = mel.squeeze() / 10 + 2
        windows = np.stack([mel[start : start + 76] for start in range(0, len(mel) - 75, 8)])
        (expected,) = to_embedding.run(None, {"input_1": windows[..., None]})
        assert np.allclose(speech_embedding().mel(wave)[0].numpy(), mel, atol=2e-3)
        assert np.allclose(speech_embedding()(wave)[0].numpy(), expected.squeeze(), atol=1e-2)
    assert np.array_equal(weights["model/conv2d_7/Conv2D_bias_fused_bn"], speech_embedding().convolutions[7].bias)


@pytest.mark.parametrize("samples", (12_512, 13_791, 13_792, 20_000))
def test_one_pass_over_a_clip_is_a_pass_over_every_window(samples: int) -> None:
    wave = noise(1, samples)
    network, whole = speech_embedding(), speech_embedding()(wave)[0]
    starts = range(0, samples - 12_511, 8 * 160)
    assert len(whole) == len(starts)
    mel = network.mel(wave)

    class Window(SpeechEmbedding):
        def mel(self, x: Tensor) -> Tensor:
            return mel[:, at : at + 76]

    alone = Window()
    for row, start in enumerate(starts):
        at = start // 160
        assert torch.allclose(alone(wave)[0, 0], whole[row], atol=1e-3)


def test_speech_embedding_does_not_depend_on_the_batch() -> None:
    waves = torch.cat([chirp(), noise(2, 32_768), torch.zeros(1, 32_768)])
    together = speech_embedding()(waves)
    assert torch.equal(together, speech_embedding()(waves))
    for row, wave in enumerate(waves):
        assert torch.allclose(speech_embedding()(wave[None])[0], together[row], atol=1e-3)
    assert bool(together.isfinite().all()), "also of silence"
    apart = torch.cdist(together.mean(1), together.mean(1)) + 100 * torch.eye(4)
    assert float(apart.min()) > 1, "different sounds, different embeddings"


def test_speech_embedding_hears_level_and_nothing_above_its_bands() -> None:
    quiet, loud = (speech_embedding()(level * chirp()) for level in (0.05, 1.0))
    assert float((quiet - loud).abs().mean()) > 0.1, "log mel levels move with the gain"
    high = 0.02 * torch.sin(2 * math.pi * 6000 * SECONDS).float()
    touched = (speech_embedding()(chirp() + high) - speech_embedding()(chirp())).abs().mean()
    assert float(touched) < 0.1


def test_short_clips_are_filled_up_with_silence() -> None:
    short = noise(2, 5000)
    assert torch.equal(speech_embedding()(short), speech_embedding()(F.pad(short, (0, 12_512 - 5000))))
    assert speech_embedding()(short).shape == (2, 1, 96)


def test_speech_embedding_is_frozen_and_draws_nothing() -> None:
    state = torch.get_rng_state()
    network = SpeechEmbedding()
    assert torch.equal(torch.get_rng_state(), state)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    shipped = load_file(perceptual.WEIGHTS / "speech_embedding.safetensors")
    assert set(shipped) == {*network.state_dict(), "scale", "shift"}


def test_weights_of_an_onnx_file() -> None:
    """A hand-made ModelProto: ir_version 8, a graph with a node, a float and an integer initializer."""

    def field(number: int, value: bytes | int) -> bytes:
        if isinstance(value, int):
            return bytes([number << 3, value])
        size = len(value)
        return (
            bytes([number << 3 | 2]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + value
        )

    values = np.arange(60, dtype="<f4")
    floats = field(1, 3) + field(1, 20) + field(2, 1) + field(8, b"w") + field(9, values.tobytes())
    integers = field(1, 1) + field(2, 7) + field(8, b"shape") + field(9, bytes(8))
    graph = field(1, b"node") + field(5, floats) + field(5, integers)
    found = pretrained.weights(field(1, 8) + field(7, graph))
    assert list(found) == ["w"] and np.array_equal(found["w"], values.reshape(3, 20))
    with pytest.raises(ValueError, match="wire type 3"):
        pretrained.weights(bytes([1 << 3 | 3]))


def test_mono_mixes_and_resamples() -> None:
    tone = torch.sin(2 * math.pi * 440 * torch.arange(48_000) / 48_000)
    clips = Clips.from_unit(torch.stack([0.5 * tone, 0.1 * tone])[None], 48_000)
    expected = 0.3 * torch.sin(2 * math.pi * 440 * torch.arange(16_000) / 16_000)
    assert mono(clips).shape == (1, 16_000)
    assert torch.allclose(mono(clips)[0, 100:-100], expected[100:-100], atol=2e-3)
    assert torch.equal(mono(clips, 48_000), clips.unit().mean(1))


def numpy_log_mel(wave: np.ndarray) -> np.ndarray:
    """VGGish's front end from its description: Hershey et al. 2017, section 2, with HTK's mel scale."""

    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    edges = np.linspace(mel(125), mel(7500), 66)
    filters = np.zeros((257, 64))
    for k in range(1, 257):
        at = mel(k * 16_000 / 512)
        for band in range(64):
            low, centre, high = edges[band : band + 3]
            filters[k, band] = max(0.0, min((at - low) / (centre - low), (high - at) / (high - centre)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = [wave[at : at + 400] * window for at in range(0, len(wave) - 399, 160)]
    return np.log(np.abs(np.fft.rfft(frames, 512)) @ filters + 0.01)


@pytest.fixture(scope="module")
def vggish_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network in torchvggish's layout with cheap random weights; half precision, as 288 MB take a while."""
    rng, state = stream(0, "vggish"), {}
    shapes = {0: (64, 1), 3: (128, 64), 6: (256, 128), 8: (256, 256), 11: (512, 256), 13: (512, 512)}
    for index, (fan_out, fan_in) in shapes.items():
        kernel = torch.randn(fan_out, fan_in, 3, 3, generator=rng) * (2 / (9 * fan_in)) ** 0.5
        state |= {f"features.{index}.weight": kernel, f"features.{index}.bias": torch.full((fan_out,), 0.01)}
    for index, (fan_out, fan_in) in {0: (4096, 12_288), 2: (4096, 4096), 4: (128, 4096)}.items():
        matrix = torch.zeros(fan_out, fan_in)
        matrix[:64] = torch.randn(64, fan_in, generator=rng) * (2 / fan_in) ** 0.5
        state |= {f"embeddings.{index}.weight": matrix, f"embeddings.{index}.bias": torch.full((fan_out,), 0.1)}
    path = tmp_path_factory.mktemp("vggish") / "vggish.safetensors"
    save_file({key: value.half() for key, value in state.items()}, path)
    return path


def torchvggish(state: dict[str, Tensor], examples: Tensor) -> Tensor:
    """The network as torchvggish runs it, without the last rectifier; (n, 1, 96, 64) to (n, 128)."""
    x = examples
    for index in (0, 3, 6, 8, 11, 13):
        x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1).relu()
        if index not in (6, 11):
            x = F.max_pool2d(x, 2)
    x = x.transpose(1, 3).transpose(1, 2).reshape(len(x), -1)
    for index in (0, 2, 4):
        x = F.linear(x, state[f"embeddings.{index}.weight"], state[f"embeddings.{index}.bias"])
        x = x.relu() if index < 4 else x
    return x


def test_vggish(vggish_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its front end is NumPy's, its layers are torchvggish's, its examples do not overlap."""
    monkeypatch.setenv("GENPRINT_VGGISH", str(vggish_file))
    network, waves = VGGish(), torch.cat([chirp(), noise(1, 32_768)])
    mels = np.stack([numpy_log_mel(wave) for wave in waves.double().numpy()])
    assert mels.shape == (2, 203, 64)
    assert np.allclose(network.mel(waves).numpy(), mels, atol=1e-3)
    found = network(waves)
    assert found.shape == (2, 2, 128)
    state = {key: value.float() for key, value in load_file(vggish_file).items()}
    examples = torch.from_numpy(mels[:, :192].reshape(4, 1, 96, 64)).float()
    expected = torchvggish(state, examples).view(2, 2, 128)
    assert torch.allclose(found, expected, atol=1e-3)
    assert float(expected.std()) > 0.1 and bool((expected < 0).any()), "no rectifier behind the last layer"
    assert torch.equal(network(waves[:, :9000]), network(F.pad(waves[:, :9000], (0, 15_600 - 9000))))


def test_vggish_filters() -> None:
    bank = vggish_bank()
    assert bank.shape == (257, 64) and bool((bank >= 0).all()) and float(bank.max()) <= 1
    heard = (bank.sum(1) > 0).nonzero().flatten() * 31.25
    assert float(heard.min()) > 125 and float(heard.max()) < 7500


def test_vggish_without_weights_says_what_is_needed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENPRINT_VGGISH", raising=False)
    with pytest.raises(UserError, match=r"audio/vggish\.safetensors, found none.*GENPRINT_VGGISH") as caught:
        VGGish()
    assert "\n" not in str(caught.value)


def test_vggish_refuses_pickles_and_other_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vggish-10086976.pth"
    monkeypatch.setenv("GENPRINT_VGGISH", str(path))
    torch.save({"features.0.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="expected safetensors, found a pickle") as caught:
        VGGish()
    assert "\n" not in str(caught.value)
    save_file({"conv.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"torchvggish's layers, found none or one more of conv\.weight"):
        VGGish()


def test_vggish_refuses_layers_of_another_shape(
    vggish_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = load_file(vggish_file) | {"embeddings.0.weight": torch.zeros(2), "features.0.bias": torch.zeros(3)}
    small = {key: value if value.numel() < 1e6 else torch.zeros(1) for key, value in state.items()}
    save_file(small, tmp_path / "small.safetensors")
    monkeypatch.setenv("GENPRINT_VGGISH", str(tmp_path / "small.safetensors"))
    with pytest.raises(UserError, match="has shape"):
        VGGish()


@pytest.mark.parametrize("size", (2048, 512, 128))
def test_amplitudes_from_their_definition(size: int) -> None:
    wave = noise(1, 8192)
    found = amplitudes(wave, size)[0].numpy()
    window = hann(size, sym=False)
    padded = np.pad(wave[0].double().numpy(), size // 2, mode="reflect")
    frames = [np.abs(np.fft.rfft(padded[at : at + size] * window)) for at in range(0, 8193, size // 4)]
    assert np.allclose(found, np.stack(frames, 1) * 2 / window.sum(), atol=1e-5)


def test_stft_distance_of_a_gain_has_a_closed_form() -> None:
    """Loud noise at half the level: a convergence of one half, and ln 2, at every resolution."""
    wave = 5 * noise(3, 16_384)
    found = stft_distance(wave, 0.5 * wave)
    assert found.shape == (3,)
    assert found.tolist() == pytest.approx([0.5 + math.log(2)] * 3, abs=0.02)
    assert mel_distance(wave, 0.5 * wave).tolist() == pytest.approx([math.log(2)] * 3, abs=0.02)


@pytest.mark.parametrize("distance", (stft_distance, mel_distance))
def test_spectral_distances(distance: Callable[[Tensor, Tensor], Tensor]) -> None:
    wave = chirp().expand(2, -1).contiguous()
    assert distance(wave, wave).tolist() == pytest.approx([0, 0], abs=2e-6)
    assert distance(wave, -wave).tolist() == pytest.approx([0, 0], abs=2e-6), "blind to the sign"
    weak, strong = (distance(wave, wave + level * noise(2, 32_768)) for level in (0.03, 0.3))
    assert bool((weak > 0).all()) and bool((weak < strong).all())
    together = distance(torch.cat([wave, noise(2, 32_768)]), torch.cat([noise(2, 32_768, "b"), wave]))
    assert torch.allclose(distance(wave, noise(2, 32_768, "b")), together[:2], rtol=1e-4)
    loud, nothing = noise(1, 32_768), torch.zeros(1, 32_768)
    for silent in (distance(nothing, loud), distance(loud, nothing)):
        assert bool(silent.isfinite().all()) and float(silent) > 1


@pytest.mark.parametrize("distance", (stft_distance, mel_distance))
def test_spectral_distances_lead_back_to_the_original(distance: Any) -> None:
    wave, other = noise(1, 8192), (noise(1, 8192) + 0.3 * noise(1, 8192, "c")).requires_grad_()
    before = distance(wave, other)
    (gradient,) = torch.autograd.grad(before.sum(), other)
    assert bool(gradient.isfinite().all())
    with torch.no_grad():
        step = 1e-3 * other.norm() / gradient.norm()
        assert float(distance(wave, other - step * gradient)) < float(before)
    silence = torch.zeros(1, 8192, requires_grad=True)
    (gradient,) = torch.autograd.grad(distance(wave, silence).sum(), silence)
    assert bool(gradient.isfinite().all())
