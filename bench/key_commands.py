"""``python -m bench attributability``: the scores of decentralized attribution, as its paper defines them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from bench import printed
from bench.commands import Device, Json, ModalityName, Spec, plan_of, print_json
from bench.metrics.intervals import Interval, clustered, clustered_rate
from bench.progress import shown
from bench.protocol import UserError
from bench.report import short
from bench.rng import stream
from bench.selection import find_codecs, find_modality, load_generator, matched
from bench.tracing_commands import Seed


def attributability(
    modality: ModalityName,
    scheme: Annotated[str, typer.Option(help="Name or codec file of a fitted scheme of keys.")] = "decentralized",
    users: Annotated[int, typer.Option(help="Users, each with one key; their decoders are made here.")] = 8,
    items: Annotated[int, typer.Option(help="Items of each user, of held-out prompts.")] = 32,
    generator: Spec = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Attributability, distinguishability and shift of decentralized attribution, arXiv:2010.13974, sec. 2.

    What the paper reports of users with one key each; ``run`` scores the same codec by codes of many keys.
    """
    plan = plan_of("quick", seed=seed, users=users, items=items, device=device)
    medium = find_modality(modality)
    with shown(Console(stderr=True), quiet=as_json):
        source = load_generator(medium, generator, device)
        medium = matched(medium, source)
        ((name, codec),) = find_codecs(medium, source, [scheme], plan).items()
        if not hasattr(codec, "judged"):
            raise UserError(
                f"scheme {name}: expected a scheme of keys such as decentralized, found {type(codec).__name__}"
            )
        judged: Any = codec.judged(users, items, stream(seed, "attributability", name))
    rng = stream(seed, "attributability", "intervals")
    apart = (judged.far.double() + judged.near.double()) / 2
    found = {
        "attributability": clustered_rate(judged.attributed.double(), judged.users),
        "distinguishability": clustered(apart, judged.users, rng=rng),
        "shift": clustered(judged.shift, judged.users, rng=rng),
    }
    if as_json:
        scores = {title: each._asdict() for title, each in found.items()}
        print_json({"scheme": name, "users": users, "items": items, **scores})
    else:
        for title, each in found.items():
            line = f"{title} {_words(each)}, n = {users} users x {items} items"
            printed.console().print(line, markup=False, highlight=False, soft_wrap=True)


def _words(found: Interval) -> str:
    return f"{short(found.mean)} [{short(found.lo)}, {short(found.hi)}]"
