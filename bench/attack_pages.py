"""The text of the pages of attacks in ``docs/``, from their cards and from what was measured."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from attacks import LISTED, families, families_for
from attacks.suites import PEERS
from bench.attack_effects import FEW, FEWEST, FIRST, ITEMS, MOST_STEPS, effects, shown_strengths
from bench.naming import attack_name
from bench.protocol import AttackFamily
from bench.report import Row, markdown, short

DOCS = Path(__file__).parent.parent / "docs"
SCHEME = "wouaf"
NAMES = {"image": "images", "audio": "audio", "3d": "meshes", "any": "weights"}
GENERATED = "<!-- Written by `python -m bench.attack_page write`; a test keeps it so. -->"

GROUPS = {
    "codec formats neural_codec telephone": "compression",
    "noise background loss": "noise and loss",
    "filter sharpness equaliser": "filters",
    "colour tone level dynamics shape pcm": "colour and level",
    "geometry warp time": "geometry and time",
    "overlay replaced": "overlays and cut-outs",
    "room air camera": "rooms and cameras",
    "shape3d_vertices shape3d_noise": "noise and smoothing",
    "shape3d_remesh shape3d_subdivision shape3d_flips": "remeshing",
    "shape3d_solid shape3d_poisson shape3d_views": "reconstruction",
    "shape3d_pose": "pose and proportions",
    "shape3d_cutting": "cutting",
    "shape3d_colour shape3d_texture": "colours",
    "shape3d_files shape3d_gltf": "files",
    "denoise": "denoising",
    "chain": "chains",
    "regeneration resynthesis lpc neural": "regeneration",
    "adversarial square forgery": "adversaries",
    "model_noise": "noise on weights",
    "precision pruning": "compression of weights",
    "training lora overwrite": "training",
    "structure invariance": "structure",
    "coalition coalition_content": "coalitions",
    "framing": "framing",
}
"""Headings of the pages by the files that attacks stand in, where a card has no category of its own."""
GROUP_OF = {stem: title for stems, title in GROUPS.items() for stem in stems.split()}


def category(family: AttackFamily) -> str:
    """The heading that an attack stands under."""
    own = getattr(family, "category", "")
    if own:
        return str(own)
    module = type(family.make(family.strengths[0])).__module__.rpartition(".")[2]
    stem = module if module in GROUP_OF else module.partition("_")[2]
    return GROUP_OF.get(stem, stem.replace("_", " "))


@lru_cache
def _categories(modality: str) -> Mapping[str, str]:
    """Category of every listed attack of a modality, by its name in tables."""
    held = families_for(modality, LISTED).values()
    return {attack_name(family.make(strength)): category(family) for family in held for strength in family.strengths}


def category_of(attack: str, modality: str) -> str:
    """Category of an attack by its name in tables, whatever of it is switched on; ``other`` for an outside one."""
    known = _categories(modality)
    plain = {name.partition(",")[0]: title for name, title in known.items()}
    return known.get(attack) or plain.get(attack.partition(",")[0], "other")


def grouped(held: Iterable[AttackFamily]) -> dict[str, list[AttackFamily]]:
    """Attacks by category, categories in the order of their first attack."""
    found: dict[str, list[AttackFamily]] = {}
    for family in held:
        found.setdefault(category(family), []).append(family)
    return found


def of_modality(modality: str) -> list[AttackFamily]:
    """Every attack that stands on one page, whether or not it can run here."""
    return [family for family in families(LISTED).values() if family.modality == modality]


def modalities() -> list[str]:
    """Modalities that have attacks of their own; the last one is ``any``."""
    names = dict.fromkeys(family.modality for family in families(LISTED).values())
    return [*(name for name in names if name != "any"), "any"]


def pages() -> dict[str, str]:
    """File name in ``docs/`` to the whole text of the page."""
    listed = {name: of_modality(name) for name in modalities()}
    return {"attacks.md": _index(listed), **{file_of(name): _page(name, held) for name, held in listed.items()}}


def file_of(modality: str) -> str:
    """File name of a modality's page."""
    return f"attacks-{NAMES.get(modality, modality)}.md"


def sheet_of(modality: str, title: str) -> str:
    """Place of a sheet below ``docs/``."""
    return f"attacks/{NAMES.get(modality, modality)}-{re.sub(r'[^a-z0-9]+', '-', title.lower())}.webp"


def _index(listed: Mapping[str, Sequence[AttackFamily]]) -> str:
    total = sum(map(len, listed.values()))
    lines = [
        "# Attacks",
        "",
        GENERATED,
        "",
        f"{total} attacks, what each does, its strengths, and what was measured:",
        "",
        *(f"- [{NAMES.get(name, name)}]({file_of(name)}): {_counted(held)}" for name, held in listed.items()),
        "",
        *INTRODUCTION,
        "",
        "## Speed beside other libraries",
        "",
        *_speed(),
        "",
        "## All attacks",
        "",
    ]
    rows = [
        [f"`{family.name}`", f"[{NAMES.get(name, name)}]({file_of(name)})", family.target, family.card or "—"]
        for name, held in listed.items()
        for family in held
    ]
    return "\n".join([*lines, *markdown(["attack", "page", "target", "what an attacker does"], rows), ""])


INTRODUCTION = (
    "`python -m bench list attacks` prints the same list, with `--json` the measured effects too. Strengths stand",
    "mildest first; the bold one is that of the preset `quick`. Severity 1 is the first of a grid, 5 its last, and 2",
    "to 4 lie evenly between them by their place in the grid, not by their damage. Measured are the severities 1, 3",
    "and 5, in this order.",
    "",
    f"How it was measured: content attacks on real held-out items that ship, {ITEMS['image']} pictures of 64×64 or",
    f"{FEW} items of another modality, and {FEWEST} where an attack needs networks or a reader; attacks on decoders on",
    f"a copy of the embedded image generator's decoder with the shipped codec `{SCHEME}`, against that copy before the",
    "attack; mixed content of coalitions against that of the first member. Attackers hold 64 clean items, so those who",
    "collect 128 get fewer here. The seed is 0, damage a mean over items, by the paired metrics of the modality.",
    "",
    "The column *per second* counts items, or decoders, per second of processor time on one",
    "thread of one core, so that other work on the machine changes it little; processors differ, so it is indicative,",
    "and a run's larger batches pay less for the fixed costs of a call.",
)

SPEED = (
    "Items a second of processor time on one thread, at severity 3, beside a well-known library that does the same in",
    "the plain loop over items that a script would write; *times* above 1 means that the attack is that much faster.",
    "Attacks on tensors work on the whole batch. Audio codecs and denoisers take one item at a time and run in as",
    "many threads as torch has, with the same result; this table uses one, so that both sides do the same work.",
    "Only MP3 is slower than the loop then: both sides call LAME, in different builds. `make speed` prints these",
    "pairs, every attack, and one thread beside two.",
    "",
)


def _speed() -> list[str]:
    """The table of attacks beside libraries."""
    held = [row for rows in effects("libraries").values() for row in rows]
    heads = ["attack", "strength", "library", "items", "per second", "library per second", "times", "difference"]
    keys = ("items", "per_second", "library_per_second", "times")
    rows = [
        [
            f"`{row['attack']}`",
            short(row["strength"]),
            row["library"],
            *(_three(row[key]) for key in keys),
            row["note"] or "",
        ]
        for row in held
    ]
    return [*SPEED, *markdown(heads, rows)]


def _counted(held: Sequence[AttackFamily]) -> str:
    targets = dict.fromkeys(family.target for family in held)
    counts = (f"{sum(family.target == target for family in held)} on {target}" for target in targets)
    return ", ".join(counts).replace("on coalition", "by coalitions").replace("on framing", "that frames a user")


def _page(modality: str, held: Sequence[AttackFamily]) -> str:
    name = NAMES.get(modality, modality)
    lines = [
        f"# Attacks on {name}",
        "",
        GENERATED,
        "",
        "How to read this page, and how it was measured: [attacks](attacks.md).",
    ]
    found = effects(modality)
    for title, part in grouped(held).items():
        lines += ["", f"## {title[:1].upper()}{title[1:]}", ""]
        place = sheet_of(modality, title)
        if (DOCS / place).is_file():
            lines += [f"![{title}, before and after three strengths]({place})", ""]
        lines += _table(part, found)
        lines += _left_out(part, found)
    return "\n".join([*lines, ""])


def _table(part: Sequence[AttackFamily], found: Mapping[str, Sequence[Row]]) -> list[str]:
    held = [row for family in part for row in found.get(family.name, ())]
    columns = [key for key in dict.fromkeys(key for row in held for key in row) if key not in FIRST]
    columns = [key for key in columns if any(row[key] is not None for row in held)]
    heads = ["attack", "what an attacker does", "strengths", *(key.replace("_", " ") for key in columns)]
    rows = [
        [f"`{family.name}`", _does(family), _strengths(family)]
        + [_arrow(found.get(family.name, ()), key) for key in [*columns, "per_second"]]
        for family in part
    ]
    return markdown([*heads, "per second"], rows)


def _does(family: AttackFamily) -> str:
    needs = "" if family.needs == "nothing else" else f" Needs {family.needs}."
    suites = [name for name, suite in PEERS.items() if family.name in suite.strengths]
    also = f" In suites {', '.join(suites)}." if suites else ""
    return f"{family.card}{needs} From {family.source}.{also}".strip().replace("|", "/")


def _strengths(family: AttackFamily) -> str:
    marked = [f"**{short(s)}**" if at == family.quick else short(s) for at, s in enumerate(family.strengths)]
    return f"{', '.join(marked)} ({family.unit})"


def _arrow(rows: Sequence[Row], key: str) -> str:
    """Values at the measured strengths, mildest first."""
    values = [row.get(key) for row in rows]
    return ", ".join(_three(value) for value in values) if any(value is not None for value in values) else "—"


def _three(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return "—"
    rounded = float(f"{value:.3g}")
    return (
        f"{rounded:.0f}"
        if abs(rounded) >= 100
        else f"{rounded:g}"
        if abs(rounded) >= 1e-4 or not rounded
        else "<0.0001"
    )


def _left_out(part: Sequence[AttackFamily], found: Mapping[str, Sequence[Row]]) -> list[str]:
    lines: list[str] = []
    for family in part:
        rows = found.get(family.name, ())
        done = [row["strength"] for row in rows if row["strength"] is not None]
        rest = [short(s) for s in shown_strengths(family) if s not in done]
        if why := next((row["lacks"] for row in rows if row["lacks"]), None):
            lines.append(f"- `{family.name}` could not run: {why}.")
        elif rest and rows:
            lines.append(f"- `{family.name}` was not measured at {', '.join(rest)}: more than {MOST_STEPS} steps.")
        elif rest:
            lines.append(f"- `{family.name}` was not measured: each strength takes more than {MOST_STEPS} steps.")
    return ["", *lines] if lines else []
