"""What the names on the command line stand for: the one place, with the commands, that knows every package."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from bench.engine import move, pick_device
from bench.presets import Plan, attacks_of, grid, within
from bench.protocol import Attack, AttackFamily, Codec, ContentAttack, Generator, Modality, Scheme, UserError
from bench.registry import is_outside, lookup, outside, require, unknown
from bench.rng import stream

logger = logging.getLogger("genprint")

FEATURES = ("default", "inception", "vggish", "views")


def find_modality(name: str) -> Modality:
    """The modality of that name, or one from outside."""
    if is_outside(name):
        found: Modality = outside("modality", name, Modality)
        return found
    from modalities import MODALITIES

    return lookup("modality", name, MODALITIES)()


def modality_names() -> list[str]:
    """Names of our modalities, the default one first."""
    from modalities import MODALITIES

    return list(MODALITIES)


def with_features(modality: Modality, name: str) -> Modality:
    """The modality with the features of its quality metric replaced; never another set than the one asked for."""
    if name == "default":
        return modality
    if name not in FEATURES:
        raise unknown("features", name, FEATURES)
    if not hasattr(modality, "with_features"):
        raise UserError(f"features {name!r}: expected a modality that has them, found {modality.name!r}")
    changed: Modality = modality.with_features(name)
    return changed


def load_generator(modality: Modality, spec: str | None, device: str) -> Generator:
    """The embedded generator, one from outside, or one that the modality loads, on the device.

    Behind a question mark a spec may have settings for the modality's own loaders; an outside class that is no
    generator, such as a network, goes through them too.
    """
    where = pick_device(device)
    place = (spec or "").partition("?")[0]
    if spec is not None and is_outside(place) and not Path(spec).exists():
        made: Generator = _from_outside(modality, spec, place, where)
    else:
        made = placed(modality, where).generator(spec)
    moved: Generator = move(made, where)
    return moved


def _from_outside(modality: Modality, spec: str, place: str, where: torch.device) -> Generator:
    thing = outside("generator", place, object)
    if isinstance(thing, Generator) or not hasattr(modality, "wrapped"):
        require("generator", place, thing, Generator)
        made: Generator = thing
        return made
    found: Generator = modality.wrapped(spec, move(thing, where))
    return found


def placed(modality: Modality, where: torch.device) -> Modality:
    """The same modality on a device, when it has one."""
    if dataclasses.is_dataclass(modality) and "device" in {item.name for item in dataclasses.fields(modality)}:
        return dataclasses.replace(modality, device=str(where))
    return modality


def matched(modality: Modality, generator: Generator) -> Modality:
    """The modality as the generator needs it: on its device, and audio at its sampling rate."""
    weight = next(generator.decoder.parameters(), None)
    near = modality if weight is None else placed(modality, weight.device)
    fitted: Modality = near.matched(generator) if hasattr(near, "matched") else near
    return fitted


def title(scheme: str) -> str:
    """What tables call a scheme: its name, or its class's."""
    return scheme.rpartition(":")[2] if is_outside(scheme) else scheme


def find_scheme(name: str) -> Scheme:
    """The description of that name, or one from outside."""
    if is_outside(name):
        found: Scheme = outside("scheme", name, Scheme)
        return found
    from schemes import SCHEMES

    return lookup("scheme", name, SCHEMES)


def find_codecs(modality: Modality, generator: Generator, names: Sequence[str], plan: Plan) -> dict[str, Codec]:
    """Codecs by name; without names, every scheme that has a codec for this generator."""
    if names:
        return {_stem(name): _codec(modality, generator, name, plan) for name in names}
    from schemes import SCHEMES, find_codec

    fitted = [name for name in SCHEMES if find_codec(name, modality.name, generator) is not None]
    if not fitted:
        raise UserError(f"no scheme has a codec for {generator.name!r}; run `python -m bench fit` first")
    return {name: _codec(modality, generator, name, plan) for name in fitted}


def _stem(name: str) -> str:
    return Path(name).stem if name.endswith(".safetensors") else title(name)


def _codec(modality: Modality, generator: Generator, name: str, plan: Plan) -> Codec:
    """A codec from its file, or where ``fit`` left it. A scheme from outside is fitted here, each time.

    A second file beside it, of the same name with ``-rival``, holds what an attacker fitted, for overwriting.
    """
    if is_outside(name):
        return find_scheme(name).fit(modality, generator, stream(plan.seed, "fit"))
    path = _codec_file(modality, generator, name)
    from schemes import load_codec

    codec: Codec = load_codec(path, modality, generator)
    rival = path.with_name(f"{path.stem}-rival{path.suffix}")
    if hasattr(codec, "rival") and rival.is_file():
        return dataclasses.replace(cast(Any, codec), rival=load_codec(rival, modality, generator))  # type: ignore[no-any-return]
    return codec


def kept_codec(name: str, modality: Modality, generator: Generator) -> Codec:
    """The codec of a scheme that ``run`` takes, or of a file; nothing is fitted."""
    from schemes import load_codec

    codec: Codec = load_codec(_codec_file(modality, generator, name), modality, generator)
    return codec


def continued(scheme: Scheme, start: str, modality: Modality, generator: Generator) -> Scheme:
    """The scheme, to be trained from a codec on, which is named as in ``run``."""
    from schemes.weight_modulation import Continued, WeightModulation, WeightModulationCodec

    codec = kept_codec(start, modality, generator)
    if not isinstance(scheme, WeightModulation):
        raise UserError(f"start: expected a scheme of one modulation, found {type(scheme).__name__}")
    if not isinstance(codec, WeightModulationCodec):
        raise UserError(f"start {start}: expected a codec of one modulation, found {type(codec).__name__}")
    made: Scheme = Continued(scheme, codec)
    return made


def _codec_file(modality: Modality, generator: Generator, name: str) -> Path:
    if name.endswith(".safetensors"):
        if not Path(name).is_file():
            raise UserError(f"codec {name}: expected a file, found none")
        return Path(name)
    from schemes import SCHEMES, find_codec

    lookup("scheme", name, SCHEMES)
    path: Path | None = find_codec(name, modality.name, generator)
    if path is None:
        raise UserError(
            f"scheme {name!r}: expected a codec fitted to {generator.name!r}, found none; "
            f"run `python -m bench fit --modality {modality.name} --scheme {name}` first"
        )
    return path


def default_codec_path(scheme: str, modality: Modality, generator: Generator) -> Path:
    """Where a new codec goes so that later runs find it."""
    from schemes import codec_path

    path: Path = codec_path(title(scheme), modality.name, generator)
    return path


def find_attacks(modality: Modality, generator: Generator, names: Sequence[str], plan: Plan) -> list[Attack]:
    """Attacks by name at the plan's strengths; without names, all that the plan asks for."""
    own = [name for name in names if not is_outside(name)]
    found: list[Attack] = [outside("attack", name, ContentAttack) for name in names if is_outside(name)]
    if not own and names:
        return found
    families = held_families(modality, generator)
    for name in own:
        found += grid(_usable(name, modality, generator, families), full=plan.full_grid)
    if names:
        return found
    return attacks_of(plan, {name: family for name, family in families.items() if available(family)})


def find_suite(modality: Modality, generator: Generator, name: str, plan: Plan) -> list[Attack]:
    """The attacks of a suite; what cannot run here is left out, with a line in the log that says what it lacks.

    Raises:
        UserError: when there is no such suite, or it is one for another modality.
    """
    from attacks import LISTED, families_for
    from attacks.suites import OURS, PEERS, strengths_in

    lookup("suite", name, {**OURS, **PEERS})
    listed, found = families_for(modality.name, LISTED), held_families(modality, generator)
    wanted = strengths_in(name, modality.name, listed)
    if not wanted:
        raise UserError(f"suite {name!r}: expected the modality {PEERS[name].modality!r}, found {modality.name!r}")
    attacks: list[Attack] = []
    for key, strengths in wanted.items():
        if lack := _lack(listed[key], found, generator):
            logger.warning("suite %s: left out %s: %s", name, key, lack)
        else:
            attacks += [found[key].make(strength) for strength in strengths]
    return within(plan, attacks)


def suite_entries() -> list[dict[str, Any]]:
    """Every suite for `list suites`."""
    from attacks import LISTED, families_for
    from attacks.suites import OURS, PEERS, strengths_in
    from modalities import MODALITIES

    pairs = [(name, modality, about) for name, about in OURS.items() for modality in MODALITIES]
    pairs += [(name, suite.modality, suite.about) for name, suite in PEERS.items()]
    held = {modality: families_for(modality, LISTED) for _, modality, _ in pairs}
    entries = []
    for name, modality, about in pairs:
        taken = strengths_in(name, modality, held[modality])
        sizes = {"attacks": len(taken), "cells": sum(map(len, taken.values()))}
        entries.append({"name": name, "modality": modality, **sizes, "about": about})
    return entries


def held_families(modality: Modality, generator: Generator) -> Mapping[str, AttackFamily]:
    """The attacks that this modality and this generator's networks allow."""
    from attacks import Tools, families_for

    tools = Tools(
        reconstruct=getattr(generator, "reconstruct", None),
        regenerate=getattr(generator, "regenerate", None),
        encode=getattr(generator, "embed", None),
        embed=getattr(modality, "embed", None),
    )
    return families_for(modality.name, tools)


def _usable(name: str, modality: Modality, generator: Generator, families: Mapping[str, AttackFamily]) -> AttackFamily:
    """The family of that name.

    Raises:
        UserError: when there is none, or when it cannot run here; says what it lacks.
    """
    from attacks import LISTED, families_for

    family = lookup("attack", name, families_for(modality.name, LISTED))
    if lack := _lack(family, families, generator):
        raise UserError(f"attack {name!r}: {lack}")
    return families[name]


def _lack(family: AttackFamily, families: Mapping[str, AttackFamily], generator: Generator) -> str | None:
    """What an attack lacks with this generator on this machine."""
    if family.name not in families:
        return f"expected {family.needs}, found no such thing with {generator.name!r}"
    return missing(family)


def missing(family: AttackFamily) -> str | None:
    """What an attack lacks on this machine, and how to get it; None when it can run."""
    if family.requires is not None and importlib.util.find_spec(family.requires) is None:
        return f"expected the module {family.requires!r}, found none; install it"
    return None if family.missing is None else family.missing()


def available(family: AttackFamily) -> bool:
    """Whether an attack can run on this machine."""
    return missing(family) is None
