"""Where a slice starts: the newest save of its own, the slice before it, the parent stage, or fresh weights."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdm.config import ModelConfig, SongConfig, StudyError
from mdm.config.recipe import StageRecipe
from mdm.files.artifact import results_root
from mdm.files.atomic import ArtifactError, read_json
from mdm.files.weights import load_weights, state_hash
from mdm.model.checkpoints import INNER, grow, load_into
from mdm.model.execution import PLAIN, Execution
from mdm.model.networks import build
from mdm.train.checkpoint import Autosaves, Checkpoint, read_checkpoint
from mdm.train.optim import make_optimizers
from mdm.train.progress import Progress, SilentProgress
from mdm.train.ranks import Ranks
from mdm.train.state import TrainingState, average_of, under

TICKS_PER_STAGE = 40
WEIGHTS = {"ema": "weights.safetensors", "raw": "weights-raw.safetensors"}


@dataclass(frozen=True)
class SliceOrder:
    """Which slice to train and how, as the command line says it."""

    recipe_path: Path
    out: Path
    before: Path | None
    autosave_seconds: float
    execution: Execution = PLAIN
    preview_images: int = 0
    snapshots: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        """Where saves, the log and the journal of attempts are."""
        return self.out.parent / "progress"


def slice_end(recipe: StageRecipe, out: Path) -> int:
    """The image count at which the slice of this file ends: slice-8000.ckpt, or final.ckpt."""
    total, batch = recipe.num_images, recipe.train.batch_images
    named = re.fullmatch(r"final\.ckpt|slice-(\d+)\.ckpt", out.name)
    end = int(named[1] or total) if named else 0
    if not 0 < end <= total or end % batch:
        raise StudyError(
            f"{out} names no slice of this stage; write final.ckpt, or slice-N.ckpt where N is a multiple of "
            f"train.batch_images {batch} below {total}"
        )
    return end


def start(
    order: SliceOrder, recipe: StageRecipe, autosaves: Autosaves, ranks: Ranks
) -> tuple[TrainingState, Progress | SilentProgress]:
    """The state to continue from, and the progress log cut back to it."""
    recipe_path = order.recipe_path
    config = recipe.train
    model, inherited = first_weights(recipe_path, recipe)
    model = model.to(ranks.device, memory_format=torch.channels_last)
    optimizers = make_optimizers(model, config, inherited)
    state = TrainingState(model, average_of(model, config), optimizers, seed=recipe.seed)
    if order.execution.shard_optimizer:
        state.shard_moments(ranks)

    saved = newest(recipe, order.before, autosaves, ranks)
    tensors, meta = saved or ({}, {"images": 0})
    images = meta["images"]
    if saved:
        refuse_other_identity(meta, identity(recipe_path, recipe), recipe_path)
        state.restore(tensors, images, meta.get("skipped", 0))
        state.machines = meta.get("machines", [])
    elif recipe.moments == "carried":
        moments, parent_config = parent_moments(recipe_path, recipe)
        state.inherit(moments, inner_prefix(recipe.model, parent_config))
    if not ranks.first:
        return state, SilentProgress(ranks.device)
    if saved:
        print(f"continuing at {images:,} of {recipe.num_images:,} images", flush=True)
    tick = max(config.batch_images, recipe.num_images // TICKS_PER_STAGE)
    progress = Progress(order.folder, recipe.sizes, recipe.num_images, tick, ranks.device)
    progress.restore(tensors, images)
    return state, progress


def newest(recipe: StageRecipe, before: Path | None, autosaves: Autosaves, ranks: Ranks) -> Checkpoint | None:
    """The last save of this slice, or the slice before; the first process chooses, the others read what it chose."""
    # A save may lie behind the end of a slice that was made shorter: the slice then holds what there is.
    found = autosaves.latest(slice_end(recipe, before) if before else 0) if ranks.first else None
    images = ranks.broadcast(found[1]["images"] if found else None)
    if images is not None:
        return found or read_checkpoint(autosaves.at(images))
    return read_checkpoint(before) if before else None


def identity(recipe_path: Path, recipe: StageRecipe) -> dict[str, Any]:
    """What a checkpoint belongs to: its stage, and the very bytes of data, text and parent it was trained from."""
    root, found = results_root(recipe_path), {"recipe": recipe_path.parent.name}
    parents = (("data", "digest"), ("stills", "digest"), ("stills_text", "sha256"), ("text", "sha256"))
    for parent, proof in parents:
        if ref := getattr(recipe, parent):
            found[parent] = read_json(root / ref / "manifest.json")[proof]
    if recipe.latents:
        found["codes"] = read_json(root / recipe.latents.codes / "manifest.json")["sha256"]
    if recipe.parent:
        found["parent"] = read_json(root / recipe.parent / "manifest.json")["weights"][WEIGHTS[recipe.start_from]]
    return found


def refuse_other_identity(meta: dict[str, Any], here: dict[str, Any], recipe_path: Path) -> None:
    """A checkpoint of another stage, or of data or a parent made anew, would silently change the weights."""
    differing = [f"{key} {meta.get(key, 'none')}, the stage now has {value}"
                 for key, value in here.items() if meta.get(key) != value]  # fmt: skip
    if differing:
        raise ArtifactError(
            f"a checkpoint in {recipe_path.parent} belongs to {'; to '.join(differing)}; "
            "remove the checkpoints there to train anew"
        )


def first_weights(recipe_path: Path, recipe: StageRecipe) -> tuple[nn.Module, set[str]]:
    """The network as the stage begins, and the names of the weights that came from the parent stage."""
    model = build(recipe.model, recipe.seed)
    if recipe.parent is None:
        return model, set()
    parent, parent_config = parent_weights(recipe_path, recipe)
    load_into(model, grow(parent, parent_config, recipe.model, recipe.seed))  # grow proves the inner weights by hash
    prefix = inner_prefix(recipe.model, parent_config)
    return model, {f"{prefix}{name}" for name in parent}


def inner_prefix(config: ModelConfig | SongConfig, parent: ModelConfig | SongConfig) -> str:
    """What stands before the names of the parent's weights in the network around them."""
    return INNER * (len(config.resolutions) - len(parent.resolutions))


def parent_moments(recipe_path: Path, recipe: StageRecipe) -> tuple[dict[str, Tensor], ModelConfig | SongConfig]:
    """What the parent stage's optimiser knew in the end, proved to belong to the weights its manifest recorded."""
    folder = results_root(recipe_path) / recipe.parent
    tensors, _ = read_checkpoint(folder / "final.ckpt")
    if state_hash(under("model.", tensors)) != read_json(folder / "manifest.json")["weights"][WEIGHTS["raw"]]:
        raise ArtifactError(f"{folder / 'final.ckpt'} does not belong to {folder / 'manifest.json'}; make both again")
    return under("optimizer.", tensors), _model_of(folder)


def parent_weights(recipe_path: Path, recipe: StageRecipe) -> tuple[dict[str, Tensor], ModelConfig | SongConfig]:
    folder = results_root(recipe_path) / recipe.parent
    name = WEIGHTS[recipe.start_from]
    weights = load_weights(folder / name)
    if state_hash(weights) != read_json(folder / "manifest.json")["weights"][name]:
        raise ArtifactError(f"{folder / name} is not what its manifest recorded; delete {folder} and run again")
    return weights, _model_of(folder)


def _model_of(folder: Path) -> ModelConfig | SongConfig:
    return StageRecipe.of(read_json(folder / "recipe.json"), folder / "recipe.json").model
