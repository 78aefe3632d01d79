"""Input, target and time embedding of the network at a noise level: discrete gammas, or a continuous sigma.

Both describe a picture x_t = sqrt(gamma) x0 + sqrt(1 - gamma) epsilon with gamma = 1 / (1 + sigma^2), so samplers
need not know which of the two a network was trained with. Levels broadcast against pictures: a number, or one per
picture as [B,1,1,1] (`process.per_row`).
"""

from torch import Tensor

from mdm.config import DiffusionConfig
from mdm.diffusion.preconditioning import EDM, VE, VP, Preconditioning
from mdm.diffusion.process import add_noise, convert, target, to_x0
from mdm.diffusion.weights import floored_gain, loss_weight

Level = Tensor | float


class Gammas:
    """Steps of a schedule; the network predicts v, epsilon or x0 (docs/reference.md, sections 10 and 11)."""

    def __init__(self, config: DiffusionConfig) -> None:
        self._config = config

    def level(self, row: Tensor, times: Tensor) -> Tensor:
        """Gamma [B] of steps [B] on one resolution's schedule [N+1]; index 0 is the clean picture."""
        return row[times + 1]

    def told(self, times: Tensor) -> Tensor:
        """Return what the time embedding encodes at times [B]."""
        return times

    def of_gamma(self, gamma: Level) -> Level:
        """The level of a gamma."""
        return gamma

    def log_sigma(self, gamma: Tensor) -> Tensor:
        """ln(sigma) of gammas [B]."""
        return ((1 - gamma) / gamma).log() / 2

    def start(self, noise: Tensor, gamma: Level) -> Tensor:
        """Where sampling begins; the released code begins with unit noise at every level."""
        return noise

    def noisy(self, x0: Tensor, epsilon: Tensor, gamma: Level) -> Tensor:
        """Pictures at a level [B,3,H,W]."""
        return add_noise(x0, epsilon, gamma)

    def seen(self, x: Tensor, gamma: Level) -> Tensor:
        """What the network sees of a noisy picture."""
        return x

    def clean(self, said: Tensor, x: Tensor, gamma: Level) -> Tensor:
        """The clean picture that the network's answer implies."""
        return to_x0(said, self._config.prediction, x, gamma)

    def error(self, said: Tensor, x0: Tensor, epsilon: Tensor, x: Tensor, gamma: Level) -> Tensor:
        """The difference whose square is the loss, [B,3,H,W]."""
        if self._config.loss_floor:
            return (said - x0) * floored_gain(self._config.loss_on, gamma, self._config.loss_floor)
        answer = convert(said, self._config.prediction, self._config.loss_on, x, gamma)
        return answer - target(self._config.loss_on, x0, epsilon, gamma)

    def weigh(self, losses: Tensor, gamma: Tensor) -> Tensor:
        """Losses [B] with the weight of their level."""
        weight = loss_weight(self._config, gamma)
        return losses if weight is None else losses * weight.flatten()


class Sigmas:
    """A preconditioning: D(y; sigma) = c_skip y + c_out F(c_in y; c_noise), y = x0 + sigma epsilon.

    A nest has one sigma per picture, that of the base resolution, as it has one time: the level at s times the
    base resolution has sigma s^(p/2), which divides its SNR by s^p as the shift of the gammas does. Its c_skip,
    c_out and c_in are those of its own sigma; the network is told c_noise of the base's, once for all levels.
    Each level's loss has the weight 1 / c_out^2 of its own sigma; under EDM every level begins at a loss of about one.
    """

    def __init__(self, config: DiffusionConfig) -> None:
        self._way = preconditioning(config)

    def level(self, row: Tensor, times: Tensor) -> Tensor:
        """Sigma [B] of the base's sigmas [B] at a resolution whose factor is row [1]."""
        return row * times

    def told(self, times: Tensor) -> Tensor:
        """c_noise of the base's sigmas [B]."""
        return self._way.told(times)

    def of_gamma(self, gamma: Level) -> Level:
        """The level of a gamma."""
        return ((1 - gamma) / gamma) ** 0.5

    def log_sigma(self, sigma: Tensor) -> Tensor:
        """ln(sigma) [B]."""
        return sigma.log()

    def _unit(self, sigma: Level) -> Level:
        # Pictures are kept as y / sqrt(1 + sigma^2), the coordinates of the gammas, in which every solver works.
        return (1 + sigma**2) ** 0.5

    def start(self, noise: Tensor, sigma: Level) -> Tensor:
        """Where sampling begins: y = sigma epsilon."""
        return sigma / self._unit(sigma) * noise

    def noisy(self, x0: Tensor, epsilon: Tensor, sigma: Level) -> Tensor:
        """Pictures at a level [B,3,H,W]."""
        return (x0 + sigma * epsilon) / self._unit(sigma)

    def seen(self, x: Tensor, sigma: Level) -> Tensor:
        """What the network sees of a noisy picture: c_in y."""
        return self._way.scale(sigma) * self._unit(sigma) * x

    def clean(self, said: Tensor, x: Tensor, sigma: Level) -> Tensor:
        """The clean picture that the network's answer implies: D."""
        return self._way.skip(sigma) * self._unit(sigma) * x + self._way.out(sigma) * said

    def error(self, said: Tensor, x0: Tensor, epsilon: Tensor, x: Tensor, sigma: Level) -> Tensor:
        """(D - x0) / c_out, [B,3,H,W]: the weight 1 / c_out^2 is inside, so no small number divides."""
        return said - self._way.target(x0, epsilon, sigma)

    def weigh(self, losses: Tensor, sigma: Tensor) -> Tensor:
        """Losses [B] with the weight of their level."""
        return losses


def preconditioning(config: DiffusionConfig) -> Preconditioning:
    """The preconditioning of a configuration whose noise levels are sigmas."""
    if config.parameterisation == "edm":
        return EDM(config.sigma_data, config.log_sigma_mean, config.log_sigma_deviation)
    return {"vp": VP, "ve": VE}[config.parameterisation]()


Parameterisation = Gammas | Sigmas
PARAMETERISATIONS = {"gamma": Gammas, "edm": Sigmas, "vp": Sigmas, "ve": Sigmas}


def parameterisation(config: DiffusionConfig) -> Parameterisation:
    """The way in which this configuration describes noise."""
    return PARAMETERISATIONS[config.parameterisation](config)
