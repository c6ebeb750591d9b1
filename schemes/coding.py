"""Error-correcting codes around any scheme: the payload is shorter than what is written into the decoder.

Cyclic codes around fingerprints of generators: Murthy and Tripathi, "PALADIN", 2025, arXiv:2506.03170.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench.protocol import Codec, Generator, Modality, Scheme, UserError


class ErrorCode(Protocol):
    """A code; a frozen dataclass."""

    @property
    def payload(self) -> int:
        """Bits that a user has."""

    @property
    def length(self) -> int:
        """Bits that are written."""

    def encode(self, payload: Tensor) -> Tensor:
        """Code word (length,) of payload bits (payload,), values in {0, 1}."""

    def decode(self, soft: Tensor) -> Tensor:
        """Soft payload bits (B, payload) of soft code bits (B, length); positive means 1."""


@dataclass(frozen=True)
class Repetition:
    """Every bit several times, one whole payload after another; read by the sum of its soft bits, the best there is.

    Attributes:
        payload: bits that a user has.
        times: how often each is written.
    """

    payload: int = 32
    times: int = 2

    @property
    def length(self) -> int:
        """Bits that are written."""
        return self.payload * self.times

    def encode(self, payload: Tensor) -> Tensor:
        """The payload, repeated."""
        return payload.repeat(self.times)

    def decode(self, soft: Tensor) -> Tensor:
        """Sums of soft bits."""
        sums: Tensor = soft.unflatten(-1, (self.times, self.payload)).sum(-2)
        return sums


@dataclass(frozen=True)
class BCH:
    """A binary BCH code, shortened to the payload, read softly.

    Chase, "A class of algorithms for decoding block codes with channel measurement information", IEEE Trans. Inf.
    Theory 18(1), 1972, algorithm 2: the least certain bits are flipped in all ways, each try is decoded by algebra
    (``galois``), and the code word that the soft bits fit best wins.

    Attributes:
        payload: bits that a user has.
        whole: length of the code before it is shortened, 2^m - 1.
        message: payload of that code.
        uncertain: bits that are tried both ways.
    """

    payload: int = 32
    whole: int = 63
    message: int = 36
    uncertain: int = 4

    @property
    def length(self) -> int:
        """Bits that are written."""
        return self.whole - self.message + self.payload

    def encode(self, payload: Tensor) -> Tensor:
        """Systematic code word: the payload, then its parity."""
        field, code = _bch(self.whole, self.message)
        word = code.encode(field(payload.cpu().long().numpy().astype("uint8")))
        return torch.tensor(word.tolist()).to(payload)

    def decode(self, soft: Tensor) -> Tensor:
        """Soft payload bits: signs of the best code word, each as large as that word is certain.

        An item without any code word nearby keeps its own soft bits.
        """
        hard, device = (soft.cpu() > 0), soft.device
        confidence = soft.float().cpu()
        doubtful = confidence.abs().argsort(1)[:, : self.uncertain]  # (B, uncertain)
        best = torch.full((len(soft),), -torch.inf)
        words = hard.clone()
        for flips in itertools.product((False, True), repeat=self.uncertain):
            tried = hard.clone()
            tried.scatter_(1, doubtful, hard.gather(1, doubtful) ^ torch.tensor(flips))
            word, valid = self._nearest(tried)
            fit = torch.where(valid, ((2.0 * word - 1) * confidence).sum(1), -torch.inf)
            words[fit > best] = word[fit > best].bool()
            best = torch.maximum(best, fit)
        certain = best / confidence.abs().sum(1).clamp_min(1e-12) * confidence.abs().mean(1)
        signed = (2.0 * words[:, : self.payload] - 1) * certain[:, None]
        found = (best > -torch.inf)[:, None]
        return torch.where(found, signed, confidence[:, : self.payload]).to(device)

    def _nearest(self, hard: Tensor) -> tuple[Tensor, Tensor]:
        """Code words (B, length) within the correcting radius, and whether there is one."""
        field, code = _bch(self.whole, self.message)
        words, errors = code.decode(field(hard.numpy().astype("uint8")), output="codeword", errors=True)
        return torch.tensor(words.tolist()), torch.tensor(errors.tolist()) >= 0


@cache
def _bch(whole: int, message: int) -> tuple[Any, Any]:
    """GF(2) and the code."""
    try:
        import galois
    except ImportError as error:
        raise UserError("BCH: expected the package 'galois', found none; install the extra `codes`") from error
    try:
        return galois.GF(2), galois.BCH(whole, message)
    except ValueError as error:
        raise UserError(f"BCH({whole}, {message}): expected a length and a payload of such a code: {error}") from error


@dataclass(frozen=True)
class ErrorCorrected:
    """A scheme whose bits carry a shorter, protected payload.

    Attributes:
        scheme: what writes and reads; its ``bits`` are the code's ``length``.
        code: the error-correcting code.
    """

    scheme: Scheme
    code: BCH | Repetition

    @property
    def bits(self) -> int:
        """Payload bits."""
        return self.code.payload

    def fit(self, modality: Modality, generator: Generator, rng: torch.Generator) -> ErrorCorrectedCodec:
        """Train the inner scheme.

        Raises:
            UserError: when its bits are not the code's.
        """
        if self.scheme.bits != self.code.length:
            raise UserError(f"scheme: expected {self.code.length} bits, as the code writes, found {self.scheme.bits}")
        self.code.encode(torch.zeros(self.code.payload))  # a missing package is found before the training
        inner: Any = self.scheme.fit(modality, generator, rng)
        described = {"name": type(self.code).__name__, **dataclasses.asdict(self.code)}
        about = dict(inner.about) | {"scheme": repr(self), "code": json.dumps(described)}
        return ErrorCorrectedCodec(dataclasses.replace(inner, about=about), self.code)


@dataclass(frozen=True, eq=False)
class ErrorCorrectedCodec:
    """A codec behind an error-correcting code. Its file is the inner codec's, which names the code.

    Attributes:
        inner: the codec of the bits that are written.
        code: the error-correcting code.
    """

    inner: Any
    code: ErrorCode

    @property
    def bits(self) -> int:
        """Payload bits."""
        return self.code.payload

    @property
    def removable(self) -> bool:
        """As the inner codec."""
        return bool(self.inner.removable)

    @property
    def about(self) -> Mapping[str, str]:
        """Facts kept in the file."""
        facts: Mapping[str, str] = self.inner.about
        return facts

    @property
    def fit_seconds(self) -> float:
        """Wall time of the fit."""
        return float(self.inner.fit_seconds)

    def modulate(self, decoder: nn.Module, fingerprint: Tensor) -> nn.Module:
        """A copy of ``decoder`` that carries the code word of ``fingerprint``.

        Raises:
            UserError: when the code has another length.
        """
        if fingerprint.shape != (self.bits,):
            found = tuple(fingerprint.shape)
            raise UserError(f"fingerprint: expected {self.bits} values of 0 or 1, found the shape {found}")
        marked: nn.Module = self.inner.modulate(decoder, self.code.encode(fingerprint))
        return marked

    def read(self, tensor: Tensor) -> Tensor:
        """Soft payload bits (B, bits) of observed tensors."""
        return self.code.decode(self.inner.read(tensor))

    @property
    def reads_weights(self) -> bool:
        """As the inner codec."""
        return bool(getattr(self.inner, "reads_weights", False))

    def read_weights(self, decoder: nn.Module, public: nn.Module) -> Tensor:
        """Soft payload bits (bits,) from the weights of ``decoder`` beside the public ones.

        Raises:
            UserError: when the inner codec cannot be read from weights.
        """
        return self.code.decode(self.inner.read_weights(decoder, public)[None])[0]

    def save(self, path: Path) -> None:
        """Write the inner codec, which names the code."""
        self.inner.save(path)


CODES: dict[str, type[Any]] = {"BCH": BCH, "Repetition": Repetition}


def corrected(codec: Codec, about: Mapping[str, str]) -> Codec:
    """The codec behind the error-correcting code that ``about`` names, if it names one."""
    if "code" not in about:
        return codec
    described = json.loads(about["code"])
    return ErrorCorrectedCodec(codec, CODES[described.pop("name")](**described))
