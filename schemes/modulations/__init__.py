"""Ways of writing a code into a weight, one file each."""

from __future__ import annotations

from schemes.modulations.amplitude import Amplitude
from schemes.modulations.contract import Modulation, Modulator

__all__ = ["Amplitude", "Modulation", "Modulator"]
