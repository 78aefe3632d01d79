"""The sampler of the memorization study beside the released code, and the optimum that copies its training pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_preconditioning import KINDS, golden_network
from test_songunet import assert_close, opened
from torch import Tensor

from mdm.config import DiffusionConfig, SampleConfig
from mdm.diffusion import sampler, schedule
from mdm.diffusion.karras import karras_heun, picture_seeds, released_latents, truncated_bytes
from mdm.diffusion.optimal import OptimalDenoiser
from mdm.evaluate.painter import truncated_to_bytes

ARRAYS, META = opened("sampler_heun")
CASES = list(META["cases"])


def tensor(name: str) -> Tensor:
    return torch.from_numpy(ARRAYS[name])


def pictures() -> Tensor:
    return tensor("pictures").float() / 127.5 - 1


def network_of(case: str) -> tuple[Callable[[Tensor, Tensor], Tensor], dict]:
    """D(x; sigma) of a case, and the limits of its levels."""
    entry = META["cases"][case]
    if "precond" not in entry:
        return OptimalDenoiser(pictures()), {}
    way, network = KINDS[entry["precond"].lower()](), golden_network(entry["network"])
    numbers = ARRAYS.get(f"{case}/labels")
    labels = None
    if numbers is not None:
        labels = torch.nn.functional.one_hot(torch.from_numpy(numbers), entry["network"]["label_dim"]).float()
    limits = {"sigma_min": way.sigma_min, "sigma_max": way.sigma_max}
    return lambda x, sigma: way.denoise(network, x, sigma, labels), limits


@pytest.mark.parametrize("case", CASES)
def test_the_way_is_the_released_one(case: str) -> None:
    entry, asked = META["cases"][case], []
    classes = entry["network"]["label_dim"] if isinstance(entry["network"], dict) else None
    latents, labels = released_latents(entry["seeds"], 8, classes)
    assert torch.equal(latents, tensor(f"{case}/latents"))
    assert labels is None or torch.equal(labels, tensor(f"{case}/labels"))
    denoise, limits = network_of(case)

    def watched(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append((x.clone(), sigma))
        return denoise(x, sigma)

    steps = entry["settings"].get("num_steps", 18)
    final = karras_heun(watched, latents, steps, **limits)
    assert len(asked) == 2 * steps - 1 and final.dtype == torch.float64
    sigmas = torch.stack([sigma for _, sigma in asked])
    torch.testing.assert_close(sigmas, tensor(f"{case}/sigmas"), rtol=1e-12, atol=0)
    for number, golden in zip(entry["x_at_evaluations"], tensor(f"{case}/x_at"), strict=True):
        assert_close(asked[number][0], golden)
    assert_close(final, tensor(f"{case}/final"))
    assert torch.equal(truncated_bytes(final), tensor(f"{case}/uint8"))


@pytest.mark.parametrize("case", "abcde")
def test_the_optimum_at_single_levels(case: str) -> None:
    x, sigma = tensor(f"denoised/{case}/x"), tensor(f"denoised/{case}/sigma")
    optimum = OptimalDenoiser(pictures())
    assert_close(optimum(x, sigma), tensor(f"denoised/{case}/D"))
    assert torch.equal(optimum(x, sigma.repeat(len(x))), optimum(x, float(sigma)))


def test_the_optimum_copies_every_picture_to_the_last_grey_level() -> None:
    """Of more pictures than the golden file has, more than once the 25 from which on distances are products."""
    generator = torch.Generator().manual_seed(0)
    known = torch.randint(256, (100, 3, 8, 8), generator=generator, dtype=torch.uint8)
    latents, _ = released_latents(range(64), 8)
    made = truncated_bytes(karras_heun(OptimalDenoiser(known.float() / 127.5 - 1), latents, 18))
    distances = (made.long()[:, None] - known.long()[None]).abs().flatten(2).amax(dim=2)
    assert distances.min(dim=1).values.max() == 0
    assert len(set(distances.argmin(dim=1).tolist())) > 20


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("unet")])
def test_the_projects_sampler_draws_the_released_pictures(case: str) -> None:
    entry = META["cases"][case]
    kind, network = entry["precond"].lower(), golden_network(entry["network"])
    config, classes = DiffusionConfig(parameterisation=kind), entry["network"]["label_dim"]

    def nest(levels, told, text, mask, labels):
        hot = torch.nn.functional.one_hot(labels, classes).float() if classes else None
        return [network(levels[0], told, hot)]

    nothing = (None, None, None, None)
    labels, steps = tensor(f"{case}/labels") if classes else None, []
    drawn = sampler.sample(
        nest, schedule.levels(config, (8,)), SampleConfig(sampler="karras", steps=18, threshold="none"), config, (8,),
        *nothing, image_ids=entry["seeds"], seed=0, labels=labels, on_step=lambda *now: steps.append(now),
    )  # fmt: skip
    assert steps == [(number, 18) for number in range(1, 19)]
    final = tensor(f"{case}/final")
    assert (drawn[0] - final.clamp(-1, 1)).abs().max() <= 1e-5 * final.abs().max()
    assert np.array_equal(truncated_to_bytes(drawn[0]), ARRAYS[f"{case}/uint8"].transpose(0, 2, 3, 1))


def test_seeds_of_a_protocol() -> None:
    assert picture_seeds(0, [0, 7, 9999]) == [0, 7, 9999]
    assert picture_seeds(3, [5]) == [3 * 2**20 + 5] and picture_seeds(4096, [5]) == [5]
    few, many = released_latents([2**32 + 1, 4], 8, 10), released_latents([1], 8, 10)
    assert torch.equal(few[0][:1], many[0]) and torch.equal(few[1][:1], many[1])


def test_a_single_step_begins_at_the_highest_level() -> None:
    latents = released_latents([0], 8)[0]
    seen = []
    karras_heun(lambda x, sigma: seen.append(sigma) or x * 0, latents, 1, sigma_max=50.0)
    assert [float(sigma) for sigma in seen] == pytest.approx([50.0])


def test_halves_are_rounded_up() -> None:
    assert truncated_bytes(torch.tensor([-1.1, -1.0, 0.0, 1.0, 1.5]).double()).tolist() == [0, 0, 128, 255, 255]


def test_it_clips_nothing() -> None:
    with pytest.raises(
        ValidationError, match="threshold clip: the sampler karras clips nothing; write threshold: none"
    ):
        SampleConfig(sampler="karras")
