"""The optimal denoiser of a set of pictures against closed forms, and as a network that draws these pictures."""

import math
from itertools import pairwise

import pytest
import torch

from mdm.config import DiffusionConfig, SampleConfig
from mdm.diffusion import schedule
from mdm.diffusion.loss import pyramid
from mdm.diffusion.optimal import OptimalNetwork, posterior
from mdm.diffusion.process import add_noise
from mdm.diffusion.sampler import sample

SIZES = (16, 8)


def pictures(count: int, seed: int = 0) -> list[torch.Tensor]:
    """Random clean pictures of both levels, highest first."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 2 - 1
    return pyramid(coarse.repeat_interleave(4, 2).repeat_interleave(4, 3), SIZES)


def noised(clean: list[torch.Tensor], gammas: torch.Tensor, seed: int = 1) -> list[torch.Tensor]:
    """Each level with noise of its own; gammas [L]."""
    generator = torch.Generator().manual_seed(seed)
    noises = [torch.randn(x.shape, generator=generator) for x in clean]
    return [add_noise(x, z, float(g)) for x, z, g in zip(clean, noises, gammas, strict=True)]


def table(gammas: list[float], queries: int) -> torch.Tensor:
    return torch.tensor(gammas)[:, None].expand(-1, queries)


def test_of_two_pictures_it_is_a_logistic_function_of_what_tells_them_apart() -> None:
    clean, gammas = pictures(2), [0.002, 0.01]
    noisy = noised([x[[0, 1, 0, 1]] for x in clean], torch.tensor(gammas))
    found = posterior(noisy, table(gammas, 4), [clean])
    # ln of the odds of the first, from the distances of every level to both.
    odds = sum(
        ((y - g**0.5 * x[1]).square().flatten(1).sum(1) - (y - g**0.5 * x[0]).square().flatten(1).sum(1)) / 2 / (1 - g)
        for y, x, g in zip(noisy, clean, gammas, strict=True)
    )
    share = odds.double().sigmoid()
    assert share.min() > 0.02 and share.max() < 0.98, "or the test would say little"
    for level, x in enumerate(clean):
        mean = share.view(-1, 1, 1, 1) * x[0] + (1 - share).view(-1, 1, 1, 1) * x[1]
        torch.testing.assert_close(found.clean[level], mean.float(), atol=1e-4, rtol=1e-4)
        spread = (x[0] - x[1]).square().mean() * share * (1 - share)
        torch.testing.assert_close(found.unknown[level], spread.double(), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_blocks_do_not_matter(size: int) -> None:
    clean, gammas = pictures(64), [0.01, 0.03]
    noisy = noised([x[:9] for x in clean], torch.tensor(gammas))
    whole = posterior(noisy, table(gammas, 9), [clean])
    parts = posterior(noisy, table(gammas, 9), ([x[k : k + size] for x in clean] for k in range(0, 64, size)))
    for first, second in zip((*whole.clean, *whole.unknown), (*parts.clean, *parts.unknown), strict=True):
        torch.testing.assert_close(first, second, atol=2e-5, rtol=2e-4)


def test_what_is_unknown_rises_with_the_noise_from_nothing_to_the_variance() -> None:
    clean = pictures(256)
    everything = [float((x - x.mean(dim=0)).square().mean()) for x in clean]
    levels = [0.99999, 0.3, 0.05, 0.02, 0.005, 1e-6]
    found = []
    for gamma in levels:
        noisy = noised(clean, torch.tensor([gamma, gamma]))
        answer = posterior(noisy, table([gamma, gamma], 256), [clean])
        found.append([float(part.mean()) for part in answer.unknown])
    assert found[0] == pytest.approx([0, 0], abs=1e-6)
    assert found[-1] == pytest.approx(everything, rel=0.01)
    for lower, higher in pairwise(found):
        assert all(a <= b + 1e-6 for a, b in zip(lower, higher, strict=True))


def test_its_loss_is_what_it_says_is_unknown() -> None:
    """E|x0 - D|^2 = E|x0|^2 - E|D|^2, the formula of reference section 17, within the luck of the noises."""
    clean, gammas = pictures(200), [0.03, 0.04]
    losses, said, energies = [], [], []
    for seed in range(8):
        answer = posterior(noised(clean, torch.tensor(gammas), seed), table(gammas, 200), [clean])
        losses.append((answer.clean[0] - clean[0]).square().mean())
        energies.append(clean[0].square().mean() - answer.clean[0].square().mean())
        said.append(answer.unknown[0].mean())
    loss, energy, unknown = (float(torch.stack(part).mean()) for part in (losses, energies, said))
    assert unknown == pytest.approx(loss, rel=0.03) == pytest.approx(energy, rel=0.1) and unknown > 0.02


def test_gaussian_pictures_shrink_as_a_gaussian_does() -> None:
    """Of normal numbers with variance 1 the mean is sqrt(gamma) times what is seen, and the variance 1 - gamma."""
    generator = torch.Generator().manual_seed(3)
    clean, gamma = torch.randn(20000, 1, 1, 1, generator=generator), 0.6
    noisy = noised([clean[:500]], torch.tensor([gamma]))
    answer = posterior(noisy, table([gamma], 500), [[clean]])
    near = noisy[0].abs().flatten() < 2
    torch.testing.assert_close(answer.clean[0][near], gamma**0.5 * noisy[0][near], atol=0.05, rtol=0)
    assert float(answer.unknown[0].mean()) == pytest.approx(1 - gamma, rel=0.05)


def test_another_level_tells_what_one_alone_does_not() -> None:
    clean, gammas = pictures(64), [0.01, 0.03]
    noisy = noised(clean, torch.tensor(gammas))
    joint = posterior(noisy, table(gammas, 64), [clean])
    alone = [posterior([y], table([g], 64), [[x]]) for y, g, x in zip(noisy, gammas, clean, strict=True)]
    for level in range(2):
        assert joint.unknown[level].mean() < 0.9 * alone[level].unknown[0].mean()
    # A level without information leaves the other as it is.
    deaf = posterior(noisy, table([gammas[0], 1e-12], 64), [clean])
    torch.testing.assert_close(deaf.clean[0], alone[0].clean[0], atol=1e-4, rtol=1e-3)


def test_a_network_without_weights_draws_the_pictures_it_knows() -> None:
    clean = pictures(12)
    diffusion = DiffusionConfig(prediction="x0", loss_on="x0", steps=100)
    gammas = schedule.levels(diffusion, SIZES)
    network = OptimalNetwork(clean, gammas, block=5)
    settings = SampleConfig(sampler="ddim", steps=50)
    drawn = sample(network, gammas, settings, diffusion, SIZES, None, None, None, None, range(16), seed=0)
    distances = torch.cdist(drawn[0].flatten(1), clean[0].flatten(1)).square() / math.prod(clean[0].shape[1:])
    nearest = distances.min(dim=1)
    assert nearest.values.max() < 1e-3 and len(set(nearest.indices.tolist())) > 4
    inner = clean[1][nearest.indices]
    torch.testing.assert_close(drawn[1], inner, atol=0.05, rtol=0)
