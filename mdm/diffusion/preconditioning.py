"""Preconditionings VP, VE and EDM: what a network is shown and told at noise level sigma, and what its answer means.

    D(x; sigma) = c_skip x + c_out F(c_in x, c_noise),   x = y + sigma epsilon

(Song et al. 2021 in the notation of Karras et al. 2022, table 1; docs/reference.md, section 19). In all three the
weight of the loss is 1 / c_out^2, so the weighted loss is a plain squared error of the network's own answer.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Level = Tensor | float
Network = Callable[..., Tensor]  # network(x [B,C,H,W], c_noise [B], labels or nothing) -> [B,C,H,W]


class Preconditioning(ABC):
    """Coefficients by noise level (a number, or one per picture), and the noise levels of training.

    sigma_min, sigma_max: between which levels the network can be asked. `draws`: whether the level of a training
    picture is made from a standard normal number or from one uniform in [0, 1).
    """

    sigma_min: float
    sigma_max: float
    draws: str = "uniform"

    @abstractmethod
    def skip(self, sigma: Level) -> Level:
        """c_skip: the share of the noisy picture in the clean one."""

    @abstractmethod
    def out(self, sigma: Level) -> Level:
        """c_out: the factor of the network's answer."""

    @abstractmethod
    def scale(self, sigma: Level) -> Level:
        """c_in: the factor of what the network sees."""

    @abstractmethod
    def told(self, sigma: Tensor) -> Tensor:
        """c_noise: what the network is told of the level."""

    @abstractmethod
    def sigma(self, draw: Tensor) -> Tensor:
        """The training level of a random number."""

    @abstractmethod
    def target(self, clean: Tensor, epsilon: Tensor, sigma: Level) -> Tensor:
        """The answer F with which D is the clean picture."""

    @abstractmethod
    def weight(self, sigma: Tensor) -> Tensor:
        """The factor of the squared error of D."""

    def denoise(self, network: Network, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> Tensor:
        """D(x; sigma) in float32, of x [B,C,H,W] at one level, or at one for each picture [B]."""
        x = x.float()
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).reshape(-1, *[1] * (x.ndim - 1))
        told = self.told(level.flatten()).expand(len(x))
        said = network(self.scale(level) * x, told) if labels is None else network(self.scale(level) * x, told, labels)
        return self.skip(level) * x + self.out(level) * said.float()

    def loss_values(
        self, network: Network, images: Tensor, level_draw: Tensor, noise: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """Weighted squared errors [B,C,H,W] of clean images [B,C,H,W] at the levels of random numbers [B]."""
        sigma = self.sigma(level_draw)
        level = sigma.reshape(-1, *[1] * (images.ndim - 1))
        clean = self.denoise(network, images + noise * level, sigma, labels)
        return self.weight(level) * (clean - images) ** 2


def released_loss(values: Tensor) -> Tensor:
    """The number that the released code differentiates: a sum over values, a mean over pictures.

    It is C*H*W times the mean over pixels that this project trains with (`loss.training_loss`).
    """
    return values.sum() / len(values)


@dataclass(frozen=True)
class VP(Preconditioning):
    """Variance preserving: sigma grows with time t from 0 to 1; the answer is the noise: D = x - sigma F."""

    beta_d: float = 19.9
    beta_min: float = 0.1
    steps: int = 1000  # c_noise is steps - 1 times t
    epsilon_t: float = 1e-5  # the smallest t
    sigma_min: float = field(init=False)
    sigma_max: float = field(init=False)

    def __post_init__(self) -> None:
        # In float32, as the released attributes are: exp(...) - 1 loses all but a few bits at the smallest t.
        for name, time in (("sigma_min", self.epsilon_t), ("sigma_max", 1.0)):
            object.__setattr__(self, name, float(self.sigma_of_time(torch.tensor(time))))

    def sigma_of_time(self, t: Tensor) -> Tensor:
        """Sigma at times t."""
        return ((0.5 * self.beta_d * t**2 + self.beta_min * t).exp() - 1).sqrt()

    def time_of_sigma(self, sigma: Tensor) -> Tensor:
        """The inverse in float32; not by log1p, whose digits below sigma = 0.003 no released network has seen."""
        log = (1 + sigma.float() ** 2).log()
        return ((self.beta_min**2 + 2 * self.beta_d * log).sqrt() - self.beta_min) / self.beta_d

    def skip(self, sigma: Level) -> Level:
        """One."""
        return 1.0

    def out(self, sigma: Level) -> Level:
        """Minus sigma."""
        return -sigma

    def scale(self, sigma: Level) -> Level:
        """Brings the deviation of the noise back to one."""
        return 1 / (sigma**2 + 1) ** 0.5

    def told(self, sigma: Tensor) -> Tensor:
        """Time on a scale of steps, not rounded."""
        return (self.steps - 1) * self.time_of_sigma(sigma)

    def sigma(self, draw: Tensor) -> Tensor:
        """Times are uniform between epsilon_t and 1; a draw of 0 is t = 1."""
        return self.sigma_of_time(1 + draw * (self.epsilon_t - 1))

    def target(self, clean: Tensor, epsilon: Tensor, sigma: Level) -> Tensor:
        """The noise."""
        return epsilon

    def weight(self, sigma: Tensor) -> Tensor:
        """1 / sigma^2."""
        return 1 / sigma**2


@dataclass(frozen=True)
class VE(Preconditioning):
    """Variance exploding: D = x + sigma F, and levels are uniform in ln(sigma)."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def skip(self, sigma: Level) -> Level:
        """One."""
        return 1.0

    def out(self, sigma: Level) -> Level:
        """Sigma."""
        return sigma

    def scale(self, sigma: Level) -> Level:
        """One: the network sees pictures of any deviation."""
        return 1.0

    def told(self, sigma: Tensor) -> Tensor:
        """ln(sigma / 2)."""
        return (0.5 * sigma).log()

    def sigma(self, draw: Tensor) -> Tensor:
        """From sigma_min at 0 to sigma_max at 1, evenly in the logarithm."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** draw

    def target(self, clean: Tensor, epsilon: Tensor, sigma: Level) -> Tensor:
        """Minus the noise."""
        return -epsilon

    def weight(self, sigma: Tensor) -> Tensor:
        """1 / sigma^2."""
        return 1 / sigma**2


@dataclass(frozen=True)
class EDM(Preconditioning):
    """Karras et al. 2022: the network sees and answers numbers of unit deviation at every level."""

    sigma_data: float = 0.5
    log_sigma_mean: float = -1.2
    log_sigma_deviation: float = 1.2
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    draws: str = field(default="normal", init=False)

    def skip(self, sigma: Level) -> Level:
        """Falls from one without noise to nothing."""
        return (self.sigma_data * self.scale(sigma)) ** 2

    def out(self, sigma: Level) -> Level:
        """Rises from nothing to sigma_data."""
        return sigma * self.sigma_data * self.scale(sigma)

    def scale(self, sigma: Level) -> Level:
        """Brings what the network sees to a deviation of one."""
        return (sigma**2 + self.sigma_data**2) ** -0.5

    def told(self, sigma: Tensor) -> Tensor:
        """ln(sigma) / 4."""
        return sigma.log() / 4

    def sigma(self, draw: Tensor) -> Tensor:
        """ln(sigma) is normal."""
        return torch.exp(self.log_sigma_mean + self.log_sigma_deviation * draw)

    def target(self, clean: Tensor, epsilon: Tensor, sigma: Level) -> Tensor:
        """A mixture of picture and noise, of deviation one; no small number divides."""
        return self.scale(sigma) * (sigma / self.sigma_data * clean - self.sigma_data * epsilon)

    def weight(self, sigma: Tensor) -> Tensor:
        """(sigma^2 + d^2) / (sigma d)^2."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2
