"""Excess loss: by how much a trained network misses the best answers that its training pictures allow.

The best denoiser of a finite set is known in closed form (mdm/diffusion/optimal.py; docs/reference.md, section 17), so
a loss can be told from what no network could have avoided. The mean squared distance of the network's clean picture
from that of the best denoiser is exactly the loss beyond the optimum, on average over what the noise hides; measured so
it is never below zero, and no luck of the clean pictures enters. Captions are left empty: the optimum reads none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mdm.config import DiffusionConfig
from mdm.config.recipe import StageRecipe
from mdm.config.recipe_measured import ExcessRecipe
from mdm.config.sizes import as_clip, shape
from mdm.data.batches.classes import class_label
from mdm.data.batches.loader import signal
from mdm.data.batches.reader import BadPicture, Pictures
from mdm.data.text.cache import Embeddings
from mdm.diffusion import noise, schedule
from mdm.diffusion.guidance import Prompt
from mdm.diffusion.loss import pyramid
from mdm.diffusion.optimal import BLOCK, Answer, posterior
from mdm.diffusion.parameterisation import parameterisation
from mdm.diffusion.process import per_row
from mdm.diffusion.residual import completed
from mdm.evaluate.intervals import jackknife, metric
from mdm.evaluate.metric_names import LOG_SNRS, excess_loss
from mdm.evaluate.painter import averaged_network, stage_of
from mdm.evaluate.progress import progress
from mdm.files.artifact import Making
from mdm.files.atomic import write_json

BATCH_IMAGES = 64


@dataclass(frozen=True)
class Queries:
    """What network and optimum are asked: the same pictures in the noise of every bin, one bin after the other.

    noisy [B*Q,3,R,R] and levels [L,B*Q] of each level, highest first; times [B*Q].
    """

    noisy: list[Tensor]
    levels: Tensor
    times: Tensor


def measure_excess(recipe_path: str | Path, batch_images: int = BATCH_IMAGES) -> None:
    """Write excess.json and manifest.json of an excess recipe."""
    making = Making(recipe_path, ExcessRecipe)
    recipe, root = making.recipe, making.root
    stage, network, weights_hash, prompt, device = ready_to_answer(
        root / recipe.train, root / recipe.text if recipe.text else None
    )
    pictures = Pictures(root / recipe.data, stage.take)
    numbers = spread(len(pictures), recipe.num_images)
    with torch.no_grad():
        queries = asked(stage, pictures, numbers, recipe.seed, device)
        best = optimum(stage.diffusion, queries, blocks(pictures, stage, device))
        said = answers(network, stage.diffusion, queries, prompt, batch_images)
        found = {side: beyond(*parts) for side, *parts in zip(map(str, stage.sizes), said, best.clean, strict=True)}
    left = {side: folded(part) for side, part in zip(found, best.unknown, strict=True)}
    write_json(making.folder / "excess.json", {"metrics": rows(found), "bins": bins(found, left)})
    for row in rows(found):
        print("{metric:28} {value:10.6f}  [{low:.6f}, {high:.6f}]  n = {n}".format(**row))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    making.finish({"num_images": len(queries.times) // len(LOG_SNRS), "weights_hash": weights_hash}, name)


class Ready(NamedTuple):
    """A network that can be asked, what it is told when it is told nothing, and where it is."""

    stage: StageRecipe
    network: nn.Module
    weights_hash: str
    nothing: Prompt
    device: torch.device


def ready_to_answer(train: Path, text: Path | None) -> Ready:
    """The averaged network of a stage or of a snapshot; `text` holds the empty caption, if it reads any."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # A measurement must not depend on the model of the card: newer ones would round products to 10 bits.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    stage, (network, weights_hash) = stage_of(train), averaged_network(train, device)
    return Ready(stage, network, weights_hash, empty_prompt(stage, text, device), device)


def spread(total: int, count: int) -> list[int]:
    """Numbers of `count` pictures, evenly over a set: neighbours in a folder may be alike."""
    return [place * total // count for place in range(count)]


def blocks(pictures: Pictures, stage: StageRecipe, device: torch.device) -> Iterator[list[Tensor]]:
    """Every training picture that can be used, as each level shows it, some at a time."""
    with progress("optimum", len(pictures)) as bar:
        for first in range(0, len(pictures), BLOCK):
            numbers = range(first, min(first + BLOCK, len(pictures)))
            usable, read = read_signal(pictures, stage, numbers)
            if usable:
                yield pyramid(read.to(device), stage.sizes)
            bar.update(len(numbers))


def read_signal(pictures: Pictures, stage: StageRecipe, numbers: Sequence[int]) -> tuple[list[int], Tensor]:
    """Numbers of the pictures that can be used (training leaves out the same), and how networks see them [n,3,R,R]."""
    usable, found = [], []
    for number in numbers:
        try:
            found.append(pictures.image(number, as_clip(stage.sizes[0]).resolution, stage.train.decode))
            usable.append(number)
        except BadPicture:
            continue
    return usable, signal(torch.from_numpy(np.array(found)).movedim(-1, -3)) if found else torch.empty(0)


def asked(
    stage: StageRecipe, pictures: Pictures, numbers: Sequence[int], seed: int, device: torch.device,
    log_snrs: Sequence[float] = LOG_SNRS,
) -> Queries:  # fmt: skip
    """Pictures in noises that are a function of seed, picture, bin and level."""
    config, way = stage.diffusion, parameterisation(stage.diffusion)
    usable, read = read_signal(pictures, stage, numbers)
    clean, table = pyramid(read, stage.sizes), schedule.levels(config, stage.sizes)
    times = moments(config, log_snrs)
    noisy: list[list[Tensor]] = [[] for _ in clean]
    for place in range(len(times)):
        for level, (x, size) in enumerate(zip(clean, stage.sizes, strict=True)):
            z = noise.normal("excess", seed, usable, shape(size), step=place, level=size)
            noisy[level].append(way.noisy(x, z, way.level(table[level], times[place : place + 1])))
    levels = torch.stack([way.level(row, times) for row in table]).repeat_interleave(len(usable), dim=1)
    return Queries(
        [torch.cat(parts).to(device) for parts in noisy], levels.to(device),
        times.repeat_interleave(len(usable)).to(device),
    )  # fmt: skip


def moments(config: DiffusionConfig, log_snrs: Sequence[float] = LOG_SNRS) -> Tensor:
    """Times [B] of the bins: the nearest steps of the schedule, or sigmas of the base."""
    wanted = torch.tensor(log_snrs)
    if config.sigmas:
        return (-wanted / 2).exp()
    return schedule.steps_of_log_snr(config, wanted)


def optimum(config: DiffusionConfig, queries: Queries, pictures: Iterator[Sequence[Tensor]]) -> Answer:
    """What the best denoiser of these pictures answers."""
    way = parameterisation(config)
    gammas = torch.stack([torch.sigmoid(-2 * way.log_sigma(level.double())) for level in queries.levels])
    return posterior(queries.noisy, gammas, pictures)


def empty_prompt(stage: StageRecipe, text: Path | None, device: torch.device) -> Prompt:
    """No caption and no class: what guidance leads away from."""
    features, mask = Embeddings(text).lookup([""]) if text else (None, None)
    classes = class_label(stage)
    labels = torch.tensor([classes.none], device=device) if classes else None
    return Prompt(*(None if part is None else part.to(device) for part in (features, mask)), labels)


def answers(
    network: nn.Module, config: DiffusionConfig, queries: Queries, prompt: Prompt, batch_images: int
) -> list[Tensor]:
    """The clean pictures [B*Q,3,R,R] of each level that the network sees."""
    way, found = parameterisation(config), []
    places = torch.arange(len(queries.times), device=queries.times.device).split(batch_images)
    for rows_of_batch in places:
        x = [noisy[rows_of_batch] for noisy in queries.noisy]
        levels = [per_row(row[rows_of_batch], part) for row, part in zip(queries.levels, x, strict=True)]
        seen = [way.seen(part, level) for part, level in zip(x, levels, strict=True)]
        given = prompt.expanded(len(rows_of_batch))
        said = network(seen, way.told(queries.times[rows_of_batch]), given.text, given.mask, labels=given.labels)
        said = [part.float() for part in said]
        if config.residual_levels:
            said = completed(said)
        found.append([way.clean(*parts) for parts in zip(said, x, levels, strict=True)])
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def folded(values: Tensor) -> np.ndarray:
    """Numbers of queries [B*Q] by bin and picture [B,Q]."""
    return values.view(len(LOG_SNRS), -1).double().cpu().numpy()


def beyond(said: Tensor, best: Tensor) -> np.ndarray:
    """Mean squared distance of the network's clean pictures from the best ones, by bin and picture [B,Q]."""
    return folded((said - best).square().flatten(1).mean(dim=1))


def rows(found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The metrics of each level, over all bins and in each, with their intervals over pictures.

    Errors with much noise are a hundred times those with little; in a geometric mean every bin counts alike, and the
    ratio of two runs is the same whatever weights a loss gives to noise levels.
    """
    made = []
    for side, values in found.items():
        for place, kept in (None, values), *enumerate(values):
            made.append(_row(excess_loss(side, place), np.atleast_2d(kept)))
    return made


def _row(name: str, values: np.ndarray) -> dict[str, Any]:
    """The geometric mean over bins of values [B,Q]."""
    count = values.shape[1]
    estimate = jackknife(lambda kept: geometric_mean(values[:, kept].mean(axis=1)), count)
    low, high = (estimate.value + sign * estimate.half_width for sign in (-1, 1))
    return metric(name, estimate.value, low, high, count, estimate.without)


def geometric_mean(values: np.ndarray) -> float:
    """Zero where one of the values is."""
    return float(np.exp(np.log(values).mean())) if values.all() else 0.0


def bins(found: dict[str, np.ndarray], left: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Of each level and bin: the optimum, what the network loses beyond it, and both together, its loss."""
    made = []
    for side, values in found.items():
        for log_snr, excess, least in zip(LOG_SNRS, values.mean(axis=1), left[side].mean(axis=1), strict=True):
            numbers = {"optimum": float(least), "excess": float(excess), "loss": float(least + excess)}
            made.append({"level": int(side), "log_snr": log_snr, **numbers})
    return made
