"""Networks that know nothing of GenPrint: a DCGAN, a generator with modulated convolutions, one that makes sound."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import weight_norm


@contextlib.contextmanager
def drawn(seed: int) -> Iterator[None]:
    """Weights that are drawn within it are those of the seed; a stock process imports this file without GenPrint."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class DCGAN(nn.Module):
    """Radford et al., 2015, arXiv:1511.06434: transposed convolutions and batch norms, (B, 8, 1, 1) to 32×32 pixels."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [(8, 16, 4, 1, 0), (16, 12, 4, 2, 1), (12, 8, 4, 2, 1)]
        layers: list[nn.Module] = []
        for inputs, outputs, kernel, stride, padding in sizes:
            layers += [
                nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        made: Tensor = self.main(z)
        return made


class ModulatedConv(nn.Module):
    """Karras et al., StyleGAN2, CVPR 2020, arXiv:1912.04958, sec. 2.2: scaled by a style, and demodulated."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.affine = nn.Linear(width, inputs)
        nn.init.ones_(self.affine.bias)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        count, _, height, width = x.shape
        weight = self.weight[None] * self.affine(w)[:, None, :, None, None]  # (B, out, in, 3, 3)
        weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        made = F.conv2d(x.reshape(1, -1, height, width), weight.flatten(0, 1), padding=1, groups=count)
        return made.view(count, -1, height, width)


class StyleGAN(nn.Module):
    """A mapping network, a learned constant and modulated convolutions: (B, 16) to 32×32 pixels in [0, 1]."""

    z_dim = 16
    output_range = (0.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(16, 16), nn.LeakyReLU(0.2), nn.Linear(16, 16), nn.LeakyReLU(0.2))
        self.constant = nn.Parameter(torch.randn(1, 12, 4, 4))
        self.convolutions = nn.ModuleList([ModulatedConv(12, 12, 16) for _ in range(3)])
        self.to_rgb = nn.Conv2d(12, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        w = self.mapping(z)
        x = self.constant.expand(len(z), -1, -1, -1)
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(F.interpolate(x, scale_factor=2.0), w), 0.2)
        return torch.sigmoid(self.to_rgb(x))


class Waves(nn.Module):
    """(B, 8, 16) to one second and a bit at 8 kHz, by weight-normalised transposed convolutions."""

    sample_rate = 8000
    latent_shape = (8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ModuleList(
            [nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(8, 8, 16, 8, 4)) for _ in range(3)]
        )
        self.out = nn.Conv1d(8, 1, 7, padding=3)

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.up:
            z = F.leaky_relu(layer(z), 0.1)
        return torch.tanh(self.out(z))


class OnlyEmbeddings(nn.Module):
    """Pictures from a table: nothing that a fingerprint could be written into."""

    latent_shape = (4,)

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 3 * 16 * 16)
        self.gates = nn.GRUCell(4, 4)

    def forward(self, z: Tensor) -> Tensor:
        return (self.gates(z) @ self.table.weight).view(-1, 3, 16, 16)


def dcgan() -> nn.Module:
    with drawn(0):
        return DCGAN()


def stylegan() -> nn.Module:
    with drawn(0):
        return StyleGAN()


def waves() -> nn.Module:
    with drawn(0):
        return Waves()


def only_embeddings() -> nn.Module:
    with drawn(0):
        return OnlyEmbeddings()


def number() -> int:
    return 7


def write_program(network: nn.Module, shape: tuple[int, ...], path: Path) -> Path:
    """A ``torch.export`` file with any number of items."""
    batch = torch.export.Dim("batch", min=1, max=512)
    program = torch.export.export(network.eval(), (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


class Residual(nn.Module):
    """A SEANet block's long short-term memory."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = x.permute(2, 0, 1)
        return (self.lstm(y)[0] + y).permute(1, 2, 0)


class Wrapped(nn.Module):
    """audiocraft's ``NormConvTranspose1d``: the layer one level down, under the old weight norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.convtr = weight_norm(nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride, stride // 2))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.convtr(x)
        return made


class Compression(nn.Module):
    """The members of an audiocraft compression model that the adapter uses, around a SEANet-like autoencoder."""

    sample_rate, frame_rate, channels = 8000, 250, 1

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 8, 32, 32)
        self.codebooks = nn.Parameter(0.1 * torch.randn(2, 32, 8))
        model = [nn.Conv1d(8, 16, 7, padding=3), Residual(16), nn.ELU(), Wrapped(16, 8, 8), nn.ELU(), Wrapped(8, 4, 4)]
        self.decoder = nn.Sequential(*model, nn.ELU(), nn.Conv1d(4, 1, 7, padding=3))

    def encode(self, x: Tensor) -> tuple[Tensor, None]:
        residual, codes = self.encoder(x).transpose(1, 2), []  # (B, T, 8)
        for book in self.codebooks:
            found = torch.cdist(residual, book.expand(len(x), -1, -1)).argmin(2)
            residual = residual - book[found]
            codes.append(found)
        return torch.stack(codes, 1), None

    def decode_latent(self, codes: Tensor) -> Tensor:
        picked = [book[codes[:, i]] for i, book in enumerate(self.codebooks)]
        return torch.stack(picked).sum(0).transpose(1, 2)

    def decode(self, codes: Tensor) -> Tensor:
        made: Tensor = self.decoder(self.decode_latent(codes))
        return made


class MusicGen:
    """The members of an audiocraft model that the adapter uses; like those, it draws from torch's own generator."""

    def __init__(self) -> None:
        with drawn(0):
            self.compression_model = Compression()
        self.duration = 1.0

    def set_generation_params(self, duration: float) -> None:
        self.duration = duration

    def generate(self, descriptions: list[str]) -> Tensor:
        frames = round(self.duration * self.compression_model.frame_rate)
        return self.compression_model.decode(torch.randint(32, (len(descriptions), 2, frames)))


def audiocraft() -> MusicGen:
    """Stands in for ``MusicGen.get_pretrained``."""
    return MusicGen()
