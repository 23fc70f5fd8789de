"""What a published BallGAN file has beside EG3D's networks: those of the sphere, under our names, with their sizes and rules.

Nothing is known of the names of BallGAN's own classes, nor of where its options lie among a network's attributes: the first do not matter
here, the second are looked for by their names.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from ...core.errors import CheckpointError
from ...core.pickles import Record
from ...core.pickles.values import describe
from ..backgrounds.sphere import FREQUENCIES
from .given import Shapes, agreed, layers_of, shape_of

OURS = {"BG_mapping.": "background.mapping.", "BG_Net.": "background.network."}
"""The published names' beginnings and ours."""

UNREAD = re.compile(r"BG_Net\..*resample_filter")
"""Filters of layers that resample nothing; they are dropped by name."""

RADIUS = 3.0
RADIUS_NAMES = re.compile(r"(bg_|background_|sphere_)?radius", re.IGNORECASE)
BACKGROUND_PLACES = re.compile(r"bg|background|sphere", re.IGNORECASE)
SPHERE_RULES = ("radius", "bg_radius", "background_radius", "sphere_radius", "sigma_act", "downscale_p_by", "bg_pe")
"""Settings that are looked for wherever they stand."""

INERT = ("_parameters", "_buffers", "_backward_hooks", "_forward_hooks", "_forward_pre_hooks")

Stated = list[tuple[str, str, Any]]


def has_sphere(generator: Record) -> bool:
    """Whether a generator has BallGAN's background."""
    modules = generator.get("_modules")
    return isinstance(modules, Mapping) and "BG_Net" in modules


def our_names(published: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what stands under published names under ours, and the names that are dropped.

    >>> our_names({"BG_mapping.w_avg": 1, "BG_Net.fc_in.bias": 2, "BG_Net.fc_in.resample_filter": 3, "decoder.net.0.bias": 4})
    ({'background.mapping.w_avg': 1, 'background.network.fc_in.bias': 2, 'decoder.net.0.bias': 4}, ['BG_Net.fc_in.resample_filter'])
    """
    out, dropped = {}, []
    for name, value in published.items():
        if UNREAD.fullmatch(name):
            dropped.append(name)
            continue
        beginning = next((b for b in OURS if name.startswith(b)), "")
        out[OURS.get(beginning, "") + name.removeprefix(beginning)] = value
    return out, dropped


def sphere_options(average: Record, shapes: Shapes, channels: int, where: str, notes: list[str]) -> dict[str, Any]:
    """Return the background's name and options; raises CheckpointError for rules or sizes that ours has not."""
    stated = attributes(average)
    _check_rules(average, stated, where, notes)
    entry = shapes.get("BG_Net.fc_in.weight", ())
    modulated = len(entry) != 2
    hidden, read = shape_of(shapes, "BG_Net.fc_in.weight", 4 if modulated else 2, where)[:2]
    code = 4 * FREQUENCIES
    blocks = sum(1 for name in shapes if re.fullmatch(r"BG_Net\.blocks\.\d+\.weight", name))
    agreed("the number of features", channels, shape_of(shapes, "BG_Net.feat_out.weight", 4 if modulated else 2, where)[0], where)
    options = {"name": "sphere", "radius": _radius(stated, notes), "hidden": hidden, "layers": blocks + 1}
    if not modulated:
        if read <= code:
            raise CheckpointError(f"{where}: BG_Net reads {read} numbers: a latent and {code} numbers of a direction are expected")
        return {**options, "network": "concatenated", "z_dim": read - code}
    if read != code:
        raise CheckpointError(f"{where}: BG_Net reads {read} numbers of a direction; {code} are expected")
    return {
        **options,
        "network": "modulated",
        "z_dim": shape_of(shapes, "BG_mapping.fc0.weight", 2, where)[1],
        "w_dim": shape_of(shapes, "BG_mapping.w_avg", 1, where)[0],
        "mapping_layers": layers_of(shapes, "BG_mapping."),
    }


def attributes(generator: Record) -> Stated:
    """Return (place, name, value) of every attribute of a network, of its modules and of the dicts in them.

    Those that were alive come before the constructor's arguments, and outer ones before inner ones.
    """
    found: Stated = []
    seen: set[int] = set()
    queue: deque[tuple[str, Any]] = deque([("G_ema", generator)])
    later: deque[tuple[str, Any]] = deque()
    while queue or later:
        place, holder = (queue or later).popleft()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        items = holder.state if isinstance(holder, Record) else holder
        for key, value in (items or {}).items():
            if key in INERT:
                continue
            if isinstance(value, (Record, dict)):
                inner = place if key == "_modules" else f"{place}.{str(key)[:60]}"
                (later if key == "_init_kwargs" else queue).append((inner, value))
            else:
                found.append((place, str(key), value))
    return found


def classes_of(module: Record) -> set[str]:
    """Return the full names of the classes without source text among a network and its modules."""
    inside = [child for child in (module.get("_modules") or {}).values() if isinstance(child, Record)]
    own = {module.name} if "." in module.name else set()
    return own.union(*(classes_of(child) for child in inside))


def _radius(stated: Stated, notes: list[str]) -> float:
    numbers = [
        (f"{place}.{key}", float(value), BACKGROUND_PLACES.search(f"{place}.{key}") is None)
        for place, key, value in stated
        if RADIUS_NAMES.fullmatch(key) and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    ]
    numbers.sort(key=lambda number: number[2])  # what is said of the background before what is said of something else
    if not numbers:
        notes.append(f"the file does not say the sphere's radius; the published {RADIUS:g} is taken")
        return RADIUS
    place, radius, _ = numbers[0]
    others = [f"{other} says {value:g}" for other, value, _ in numbers if value != radius]
    if others:
        notes.append(f"the sphere's radius is {radius:g}, from {place}; {', '.join(others)}")
    return radius


def _check_rules(average: Record, stated: Stated, where: str, notes: list[str]) -> None:
    for place, key, value in stated:
        if key == "sigma_act" and value not in (None, "linear"):
            raise CheckpointError(f"{where}: {place}.sigma_act is {describe(value)}, 'linear' is expected")
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key == "downscale_p_by" and number and abs(value - 2 * math.pi) > 1e-3:
            raise CheckpointError(f"{where}: {place}.downscale_p_by is {value:g}, 2 pi is expected")
        if key == "bg_pe" and number and abs(value - 2 * math.pi) > 1e-3:
            notes.append(f"{place}.bg_pe is {value:g}; here the sphere's angles are divided by 2 pi")
    found: Any = average
    for name in ("decoder", "net", "1"):
        found = found.get("_modules", {}).get(name) if isinstance(found, Record) else None
    if not isinstance(found, Record) or found.class_name != "Softplus":
        got = f"a {found.class_name[:60]}" if isinstance(found, Record) else "missing"
        raise CheckpointError(f"{where}: the decoder's activation is {got}, a Softplus is expected")
