"""What a step of each training takes of a device's memory, before it is submitted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from mdm.config.units import size
from mdm.study.cost import speeds as throughput
from mdm.study.study import Study

if TYPE_CHECKING:
    from mdm.study.cost.memory import Memory

MEMORY_ASSUMPTIONS = (
    "assumed: nodes, gpus, accumulate, precision and recompute of each stage, and captions of max_tokens positions;\n"
    "with GPUs, the layers a GPU would use, run here without content: not compared with a real GPU yet.\n"
    "not counted: what the libraries take for themselves, a bucket of gradients between processes, and free room."
)


def memories(study: Study, only: Collection[str] | None = None) -> dict[str, Memory]:
    """Return what a step of each training takes of one device, or of these; simulating a network takes seconds."""
    from mdm.study.cost.memory import estimate  # torch is loaded only for this

    known: dict[tuple[Any, ...], Memory] = {}
    found = {}
    for ref in study.of_kind("train"):
        if only is not None and ref not in only:
            continue
        recipe, resources = study.recipe(ref), study.resources(ref)
        inherited = len(study.recipe(recipe.parent).model.resolutions) if recipe.parent else 0
        in_parts = min(2, resources.accumulate)  # further parts take what the second one does
        train = recipe.train.model_copy(update={"batch_images": in_parts * at_once(study, ref)})
        settings = {"tokens": throughput.tokens(study, recipe.text), "inherited": inherited}
        settings |= {"recompute": resources.recompute, "on_gpu": resources.gpus > 0, "parts": in_parts}
        parts = (recipe.model, train, recipe.diffusion)
        key = (*(part.model_dump_json() for part in parts), *settings.values())
        if key not in known:
            known[key] = estimate(*parts, **settings)
        found[ref] = known[key]
    return found


def at_once(study: Study, ref: str) -> int:
    """Return how many pictures one process of a training takes at the same time."""
    return study.recipe(ref).train.batch_images // study.resources(ref).parts


def memory_table(study: Study, found: Mapping[str, Memory] | None = None) -> str:
    names = " ".join(f"{name:>9}" for name in ("weights", "gradients", "moments", "average", "peak"))
    lines = ["", f"{'memory of a step, by device':<44} {'images':>6} {names}  activations by level"]
    for ref, one in (found or memories(study)).items():
        figures = (f"{size(n):>9}" for n in (one.parameters, one.gradients, one.moments, one.average, one.peak))
        levels = ", ".join(f"{r} px {size(kept)}" for r, kept in one.activations.items())
        lines.append(f"{ref:<44} {at_once(study, ref):>6} {' '.join(figures)}  {levels}")
    return "\n".join([*lines, MEMORY_ASSUMPTIONS])
