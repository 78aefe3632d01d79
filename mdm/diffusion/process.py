"""The forward process and the three ways to say the same thing: x0, epsilon, v.

`gamma` broadcasts against the pictures: a number, or one per picture as [B,1,1,1] (`per_row`).
"""

from torch import Tensor

from mdm.config import StudyError, nearest

KINDS = ("v", "epsilon", "x0")
Gamma = Tensor | float


def per_row(values: Tensor, pictures: Tensor) -> Tensor:
    """One value per row [B], broadcast against pictures [B,3,H,W] or clips [B,T,3,H,W]."""
    return values.view(-1, *[1] * (pictures.ndim - 1))


def add_noise(x0: Tensor, epsilon: Tensor, gamma: Gamma) -> Tensor:
    """x_t = sqrt(gamma) x0 + sqrt(1 - gamma) epsilon."""
    return gamma**0.5 * x0 + (1 - gamma) ** 0.5 * epsilon


def to_x0(prediction: Tensor, kind: str, x_t: Tensor, gamma: Gamma) -> Tensor:
    """The clean picture that a prediction of `kind` implies."""
    if kind == "x0":
        return prediction
    if kind == "v":
        return gamma**0.5 * x_t - (1 - gamma) ** 0.5 * prediction
    if kind == "epsilon":
        return (x_t - (1 - gamma) ** 0.5 * prediction) / gamma**0.5
    raise _unknown(kind)


def from_x0(x0: Tensor, kind: str, x_t: Tensor, gamma: Gamma) -> Tensor:
    """What a network that predicts `kind` should have said if the clean picture is `x0` (gamma < 1)."""
    if kind == "x0":
        return x0
    if kind == "v":
        return (gamma**0.5 * x_t - x0) / (1 - gamma) ** 0.5
    if kind == "epsilon":
        return (x_t - gamma**0.5 * x0) / (1 - gamma) ** 0.5
    raise _unknown(kind)


def convert(prediction: Tensor, kind: str, wanted: str, x_t: Tensor, gamma: Gamma) -> Tensor:
    """A prediction of `kind` expressed as `wanted`."""
    if kind == wanted:
        return prediction
    if (kind, wanted) == ("v", "epsilon"):
        # Same as through x0, but without dividing by sqrt(1 - gamma), which is tiny at the first levels.
        return (1 - gamma) ** 0.5 * x_t + gamma**0.5 * prediction
    return from_x0(to_x0(prediction, kind, x_t, gamma), wanted, x_t, gamma)


def target(kind: str, x0: Tensor, epsilon: Tensor, gamma: Gamma) -> Tensor:
    """The exact value that a prediction of `kind` should have."""
    if kind == "v":
        return gamma**0.5 * epsilon - (1 - gamma) ** 0.5 * x0
    if kind not in KINDS:
        raise _unknown(kind)
    return x0 if kind == "x0" else epsilon


def _unknown(kind: str) -> StudyError:
    return StudyError(f"unknown prediction '{kind}'; {nearest(kind, KINDS)}")
