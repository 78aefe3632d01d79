"""From the last checkpoint of a stage to weights that others can read, and the record of how they came to be."""

import json
from pathlib import Path
from typing import Any

from mdm.config.recipe import StageRecipe
from mdm.data.batches.skipped import skipped
from mdm.files.artifact import Making, results_root
from mdm.files.atomic import read_json, write_atomic, write_json
from mdm.files.weights import save_weights, state_hash
from mdm.model.arithmetic import step_gigaflops
from mdm.train.checkpoint import Autosaves, read_checkpoint
from mdm.train.example import open_embeddings
from mdm.train.start import WEIGHTS, identity
from mdm.train.state import under

ROLES = ("training", "stills", "validation")  # of the data sets that a stage reads


def export(recipe_path: Path) -> None:
    """Write averaged and raw weights, the history and the manifest of a finished stage."""
    making = Making(recipe_path, StageRecipe)
    recipe, folder = making.recipe, making.folder
    tensors, meta = read_checkpoint(folder / "final.ckpt")
    model = recipe.plain()["model"]
    states = {"ema": under("ema.", tensors), "raw": under("model.", tensors)}
    for kind, state in states.items():
        note = {"recipe": folder.name, "weights": kind, "model": model}
        save_weights(folder / WEIGHTS[kind], state, note)
    write_json(folder / "model.json", model)
    history = (folder / "progress" / "history.jsonl").read_text()
    write_atomic(folder / "history.jsonl", history)
    hashes = {WEIGHTS[kind]: state_hash(state) for kind, state in states.items()}
    last = json.loads(history.splitlines()[-1])
    left_out = {role: skipped(folder / "progress", role) for role in ROLES}
    record = {"trained_on": meta["machines"], "skipped_steps": meta["skipped"], "skipped": left_out}
    cost = {**_cost(last, states), "gigaflops": round(gigaflops(recipe_path, recipe, recipe.num_images), 3)}
    facts = {**_lineage(recipe_path, recipe), "weights": hashes, **cost, **record}
    making.finish(facts, meta["machines"][-1]["device"])
    Autosaves(folder / "progress", 0).remove()
    for part in folder.glob("slice-*.ckpt"):
        part.unlink()  # of a Snakemake that was killed before it removed this file, which is only temporary to it


def _lineage(recipe_path: Path, recipe: StageRecipe) -> dict[str, Any]:
    """Where the stage stands in its chain."""
    parent_hash = None
    if recipe.parent:
        parent = read_json(results_root(recipe_path) / recipe.parent / "manifest.json")
        parent_hash = parent["weights"][WEIGHTS[recipe.start_from]]
    resolutions = [r if isinstance(r, int) else str(r) for r in recipe.sizes]
    return {
        "resolutions": resolutions, "images": recipe.num_images, "parent": recipe.parent,
        "parent_hash": parent_hash,
        **{f"{key}_digest": value for key, value in identity(recipe_path, recipe).items() if key in ("data", "text")},
    }  # fmt: skip


def gigaflops(recipe_path: Path, recipe: StageRecipe, images: int) -> float:
    """Arithmetic of a stage up to an image count, forth and back, as counted from its recipe."""
    embeddings = open_embeddings(results_root(recipe_path), recipe.text)
    inner = 0
    if recipe.parent and recipe.train.inner_rate == 0:
        parent = read_json(results_root(recipe_path) / recipe.parent / "model.json")
        inner = len(parent["levels"])
    tokens = embeddings.tokens if embeddings else 0
    return images * step_gigaflops(recipe.model, recipe.diffusion, tokens, inner)


def _cost(last: dict[str, Any], states: dict[str, Any]) -> dict[str, Any]:
    parameters = sum(tensor.numel() for tensor in states["raw"].values())
    return {"seconds": last["seconds"], "images_per_second": round(last["images"] / max(last["seconds"], 1e-9), 2),
            "parameters": parameters}  # fmt: skip
