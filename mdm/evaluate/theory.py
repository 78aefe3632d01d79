"""Why the optimum copies, in pictures: the best denoiser of a few training pictures, asked, measured and sampled.

Everything is a function of the recipe and of the training set; no network is trained. What is made here is laid out
with its words by the report (mdm/report/theory.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdm.config import DiffusionConfig, SampleConfig
from mdm.config.recipe_measured import TheoryRecipe
from mdm.data.batches.loader import signal
from mdm.data.batches.reader import BadPicture, Pictures
from mdm.data.rows import to_bytes
from mdm.diffusion import noise, schedule
from mdm.diffusion.linear import LinearNetwork
from mdm.diffusion.optimal import OptimalNetwork, posterior
from mdm.diffusion.sampler import sample
from mdm.evaluate.archive import ArrayStream, write_archive
from mdm.files.artifact import Making
from mdm.files.atomic import ArtifactError, write_json

# Noise levels at 8 px; distances between pictures grow with their side, and with them what noise hides.
SIGMAS, CURVE, SIDE = (20.0, 10.0, 5.0, 2.5, 1.25, 0.5, 0.1), np.geomspace(0.1, 40, 30), 8
ASKED = 96  # questions at each point of the curve
DRAWN = 6
FEWEST = 2  # pictures that can be compared
DIFFUSION = DiffusionConfig(prediction="x0", loss_on="x0")
SAMPLING = SampleConfig(sampler="heun", steps=35, guidance=1)
GREYS = 127.5  # grey levels in 1


def draw_theory(recipe_path: str | Path) -> None:
    """Write theory.json, theory.npz and manifest.json of a theory recipe."""
    making = Making(recipe_path, TheoryRecipe)
    recipe = making.recipe
    known = training_pictures(Pictures(making.root / recipe.data), max(recipe.sets), recipe.resolution)
    few, sets = known[: recipe.num_images], sorted({min(count, len(known)) for count in recipe.sets})
    with torch.no_grad():
        shown, answered = denoised(few, recipe.seed)
        drawn, copies = sampled(few, recipe.seed)
        losses = curve(known, sets, few, recipe.seed)
    arrays = {name: ArrayStream.of(to_bytes(part)) for name, part in {"pictures": few, **shown, **drawn}.items()}
    write_archive(making.folder / "theory.npz", arrays)
    write_json(making.folder / "theory.json", {"answers": answered, "copies": copies, "curve": losses})
    making.finish({"num_images": len(few)})


def training_pictures(pictures: Pictures, count: int, resolution: int) -> Tensor:
    """The first `count` that can be used, or all there are, as networks see them [count,3,R,R]."""
    found: list[np.ndarray] = []
    for number in range(len(pictures)):
        try:
            found.append(pictures.image(number, resolution))
        except BadPicture:
            continue
        if len(found) == count:
            break
    if len(found) < FEWEST:
        raise ArtifactError(f"{pictures.folder} has {len(found)} pictures that can be used; it takes {FEWEST} or more")
    return signal(torch.from_numpy(np.array(found)).movedim(-1, -3))


def at_side(sigmas: Sequence[float] | np.ndarray, side: int) -> list[float]:
    return [round(float(sigma) * side / SIDE, 4) for sigma in sigmas]


def gammas_of(sigmas: Sequence[float]) -> Tensor:
    return 1 / (1 + torch.tensor(sigmas, dtype=torch.float64).square())


def noised(clean: Tensor, gammas: Tensor, noises: Tensor) -> Tensor:
    """sqrt(gamma) x + sqrt(1 - gamma) z, [Q,3,R,R] of gammas [Q]."""
    roots, rest = (part.float().view(-1, 1, 1, 1) for part in (gammas.sqrt(), (1 - gammas).sqrt()))
    return roots * clean + rest * noises


def weights_of(noisy: Tensor, gammas: Tensor, few: Tensor) -> Tensor:
    """How much each picture counts in the best answer, [Q,N]: the softmax of -|y - x_n|^2 / (2 sigma^2)."""
    seen = noisy.flatten(1).double() / gammas.sqrt()[:, None]
    distances = torch.cdist(seen, few.flatten(1).double()).square()
    return torch.softmax(-distances * (gammas / (1 - gammas))[:, None] / 2, dim=1)


def effective(weights: Tensor) -> Tensor:
    """How many pictures an answer is a mixture of: e to the entropy of its weights, [Q]."""
    return torch.special.entr(weights).sum(dim=1).exp()


def denoised(few: Tensor, seed: int) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The first picture in one noise of falling size: what is seen, and what the two best denoisers answer."""
    sigmas = at_side(SIGMAS, few.shape[-1])
    gammas = gammas_of(sigmas)
    one = noise.normal("theory", seed, [0], few.shape[1:])
    noisy = noised(few[:1], gammas, one)
    best = posterior([noisy], gammas[None], [[few]]).clean[0]
    linear = LinearNetwork(few, gammas[None]).answer(noisy, gammas)
    weights = weights_of(noisy, gammas, few)
    rows = zip(sigmas, weights.tolist(), effective(weights).tolist(), strict=True)
    said = [{"sigma": sigma, "weights": of, "effective": count} for sigma, of, count in rows]
    return {"noisy": noisy, "answers": best, "linear": linear}, said


def sampled(few: Tensor, seed: int) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Pictures that the project's own sampler draws with either denoiser in the network's place, from equal noises."""
    size = few.shape[-1]
    gammas = schedule.levels(DIFFUSION, (size,))
    networks = {"drawn": OptimalNetwork([few], gammas), "mixed": LinearNetwork(few, gammas)}
    found = {
        name: sample(network, gammas, SAMPLING, DIFFUSION, (size,), None, None, None, None, range(DRAWN), seed)[0]
        for name, network in networks.items()
    }
    return found, [line for name, pictures in found.items() for line in nearest(name, pictures, few)]


def nearest(name: str, pictures: Tensor, few: Tensor) -> list[dict[str, Any]]:
    """Each picture's nearest training picture, in whole grey levels as stored."""
    ours, theirs = (torch.from_numpy(to_bytes(part)).flatten(1).long() for part in (pictures, few))
    differences = (ours[:, None] - theirs[None]).abs()
    squares = differences.square().sum(dim=2)
    order = squares.argsort(dim=1)
    return [
        {"of": name, "nearest": int(first), "largest_difference": int(differences[row, first].max()),
         "distance": float(squares[row, first]) ** 0.5, "second": float(squares[row, second]) ** 0.5}
        for row, (first, second) in enumerate(order[:, :2].tolist())
    ]  # fmt: skip


def curve(known: Tensor, sets: Sequence[int], few: Tensor, seed: int) -> dict[str, Any]:
    """The loss of the best denoiser of larger and larger sets, and of the best linear one of the few, by noise."""
    sigmas = at_side(CURVE, few.shape[-1])
    optimal = {str(count): _optimal_loss(known[:count], sigmas, seed) for count in sets}
    network = LinearNetwork(few, gammas_of(sigmas)[None])
    return {"sigmas": sigmas, "optimal": optimal, "linear": network.loss(torch.tensor(sigmas)).tolist()}


def _optimal_loss(known: Tensor, sigmas: Sequence[float], seed: int) -> list[float]:
    """What even the best denoiser of these pictures does not know, mean square by noise level."""
    numbers = [place * len(known) // ASKED for place in range(ASKED)]  # of a small set each picture several times
    noises = noise.normal("theory-loss", seed, range(ASKED), known.shape[1:])
    losses = []
    for gamma in gammas_of(sigmas):
        gammas = gamma.expand(ASKED)
        noisy = noised(known[numbers], gammas, noises)
        losses.append(float(posterior([noisy], gammas[None], [[known]]).unknown[0].mean()))
    return losses
