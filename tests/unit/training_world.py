"""A results folder with everything that the first stages of the quick study need, and processes that train in it."""

import itertools
import multiprocessing
import os
import shutil
import socket
import time

import torch
from repository import HANG_SECONDS

from mdm.data.shards.shard import index_data, write_manifest, write_shard
from mdm.data.text.cache import embed
from mdm.files.atomic import write_json
from mdm.study import study

NEVER = 1e9
SMALL = {
    "data.scenes-train.settings.num_images": 48,
    "data.scenes-new.settings.num_images": 16,
    "base.stages.r8.num_images": 128,
    "base.stages.r16.num_images": 64,
    "base.stages.r16.train": {"inner_rate": 0},
    "base.train.validate_images": 64,
    "protocols.zero-shot.num_images": 16,
    "protocols.zero-shot.num_reference": 16,
}


def make_world(results, overrides=SMALL, stages=("r8", "r16")):
    """Data, text and recipes; {stage: recipe path}."""
    torch.set_num_threads(1)
    loaded = study.load("quick", overrides)
    paths = {stage.name: stage.artifact for stage in loaded.runs[0].stages if stage.name in stages}
    wanted = set(paths.values())
    wanted |= {parent for ref in list(wanted) for parent in loaded.parents(ref)}
    for ref in wanted:
        write_json(results / ref / "recipe.json", loaded.recipe(ref).plain())
    for ref in (r for r in wanted if r.startswith("data/")):
        recipe = results / ref / "recipe.json"
        index_data(recipe), write_shard(recipe, 0), write_manifest(recipe)
    for ref in (r for r in wanted if r.startswith("text/")):
        embed(results / ref / "recipe.json")
    return {name: results / ref / "recipe.json" for name, ref in paths.items()}


def copied(recipes, folder):
    """The same world in a folder of its own."""
    results = next(iter(recipes.values())).parents[2]
    shutil.copytree(results, folder / "results")
    return {name: folder / "results" / path.relative_to(results) for name, path in recipes.items()}


def train_and_halt(recipe, out, *arguments, **settings):
    """Train two steps, and no third before there is a file `go` beside the recipe: whoever watches may be slow."""
    from mdm.train import loop

    begun, step = itertools.count(), loop.training_step

    def halting(*words):
        if next(begun) >= 2:
            while not (recipe.parent / "go").exists():
                time.sleep(0.01)
        return step(*words)

    loop.training_step = halting
    loop.train(recipe, out, *arguments, **settings)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def begin(world, function, *arguments, **settings):
    """Start `function` in so many processes that find one another as torchrun's do."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mdm.train.loop", "mdm.train.export"])
    port, processes = free_port(), []
    for rank in range(world):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(context.Process(target=_inside, args=(place, function, arguments, settings)))
        processes[-1].start()
    return processes


def together(world, function, *arguments, **settings):
    """Run `function` in so many processes; their exit statuses."""
    processes = begin(world, function, *arguments, **settings)
    for process in processes:
        process.join(HANG_SECONDS)
        assert process.exitcode is not None, "still running"
    return [process.exitcode for process in processes]


def _inside(place, function, arguments, settings):
    os.environ.update({key: str(value) for key, value in place.items()})
    torch.set_num_threads(1)
    if log := settings.pop("log", None):
        stream = os.open(f"{log}.{place['RANK']}.log", os.O_CREAT | os.O_WRONLY)
        os.dup2(stream, 1), os.dup2(stream, 2)
    function(*arguments, **settings)
