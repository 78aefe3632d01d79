"""The recipes that a study asks for: its base, and what each ablation makes of it by set, cases and sweep."""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

from mdm.config import AblationConfig, StudyConfig, StudyError
from mdm.study.runs import Variant


def all_variants(config: StudyConfig, usual: list[str], where: str) -> list[Variant]:
    """Return every recipe before it meets a seed; `usual` are the protocols of ablations that name none."""
    variants = [Variant("base", "base", None, None, {}, config.seeds, usual)]
    for name, entry in config.ablations.items():
        shared = (entry.seeds or config.seeds, usual if entry.protocols is None else entry.protocols)
        if not entry.sweep and not entry.cases:
            variants.append(Variant(name, entry.title, name, None, entry.set, *shared))
        for point, changes in _points(entry):
            label, value = f"{entry.title} = {', '.join(map(str, point))}", point[0] if len(point) == 1 else point
            variants.append(Variant(f"{name}={','.join(map(_slug, point))}", label, name, value, changes, *shared))
    names = [variant.name for variant in variants]
    for variant in variants:
        if names.count(variant.name) > 1 or len(set(variant.seeds)) < len(variant.seeds):
            raise StudyError(f"{where}: run '{variant.name}' stands twice (same value or same seed)")
    return variants


def _points(entry: AblationConfig) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield what names each point of an ablation, its case before its swept values, and all that it changes."""
    if not entry.sweep and not entry.cases:
        return
    for case in entry.cases or (None,):
        own = {} if case is None else entry.cases[case]
        for values in product(*entry.sweep.values()):
            named = values if case is None else (case, *values)
            yield named, {**entry.set, **own, **dict(zip(entry.sweep, values, strict=True))}


def _slug(value: Any) -> str:
    """Write a swept value as part of a file name: 1.5 -> 1.5, -0.8 -> minus0.8, [2, 1] -> 2-1, True -> true."""
    signed = re.sub(r"(?<![a-z0-9])-(?=[0-9.])", "minus", str(value).lower())
    return re.sub(r"[^a-z0-9.]+", "-", signed).strip("-")
