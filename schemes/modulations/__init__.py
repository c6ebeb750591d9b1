"""Ways of writing a code into a weight, one file each."""

from __future__ import annotations

from typing import Any

from schemes.modulations.amplitude import Amplitude
from schemes.modulations.contract import Modulation, Modulator, energy_per_bit, other_values
from schemes.modulations.demodulated import Demodulated
from schemes.modulations.differential import Differential
from schemes.modulations.dither import Dither
from schemes.modulations.frequency import Frequency
from schemes.modulations.invariant import FunctionInvariant
from schemes.modulations.invariant_scaling import InvariantScaling
from schemes.modulations.low_rank import LowRank
from schemes.modulations.normalisation import Normalisation
from schemes.modulations.orthogonal import Orthogonal
from schemes.modulations.output_channel import OutputChannel
from schemes.modulations.residual import Residual
from schemes.modulations.rotation import Rotation
from schemes.modulations.routed import Routed
from schemes.modulations.spread_spectrum import SpreadSpectrum
from schemes.modulations.task_vectors import TaskVectors
from schemes.modulations.templates import Templates

__all__ = ["MODULATIONS", "Amplitude", "Modulation", "Modulator", "energy_per_bit", "other_values"]

MODULATIONS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Amplitude,
        Residual,
        Demodulated,
        OutputChannel,
        Normalisation,
        Rotation,
        Orthogonal,
        LowRank,
        Routed,
        SpreadSpectrum,
        Dither,
        Frequency,
        Differential,
        Templates,
        FunctionInvariant,
        InvariantScaling,
        TaskVectors,
    )
}
"""Every modulation by the name of its class, as codec files name it."""
