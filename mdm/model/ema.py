"""The average of the weights over training: with a half-life counted in images, or by a power function of time."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

RAMP_RATIO = 0.05


def beta(
    batch_images: float,
    halflife_images: float,
    images_seen: float,
    ramp_ratio: float | None = RAMP_RATIO,
    final: float | None = None,
) -> float:
    """Share of the average that an update keeps; the ramp caps the half-life at a share of the images seen.

    `images_seen` includes this batch, or not where the released code is followed. Without a ramp (None) the first
    weights linger for several half-lives. `final`: the share once the ramp has ended, in place of the half-life's.
    """
    longest = halflife_images
    if ramp_ratio is not None:
        halflife_images = min(halflife_images, images_seen * ramp_ratio)
    kept = 0.5 ** (batch_images / halflife_images) if halflife_images > 0 else 0.0
    return kept if final is None else final * kept / 0.5 ** (batch_images / longest)


def power_exponent(width: float) -> float:
    """Exponent of the power function whose weights spread over time with this deviation, relative to the whole.

    Weights proportional to t^p on 0..1 are a beta distribution; its variance is (p+1) / ((p+2)^2 (p+3)).
    """
    if not 0 < width < 12**-0.5:
        raise ValueError(f"width {width} is not between 0 and {12**-0.5:.4f}, that of an average of everything alike")
    low, high = 0.0, 2 / width
    for _ in range(200):
        middle = (low + high) / 2
        wider = (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > width**2
        low, high = (middle, high) if wider else (low, middle)
    return high


def power_beta(batch_images: int, exponent: float, images_seen: int) -> float:
    """Share of a power-function average that an update keeps; the first batch replaces the fresh weights."""
    return (1 - batch_images / images_seen) ** (exponent + 1)


class Ema:
    """A second set of weights that follows a network's; its state is a plain state dict.

    With `width`, earlier weights count as a power of the time when they were: the average forgets the beginning, but
    never stops growing longer (Karras et al. 2024). With `final`, an update keeps this share, at once or (with a
    half-life as well) after the ramp; 0 makes the average the network itself.
    """

    def __init__(
        self,
        model: nn.Module,
        halflife_images: float | None = None,
        ramp_ratio: float | None = RAMP_RATIO,
        width: float | None = None,
        final: float | None = None,
    ) -> None:
        if (halflife_images is None and final is None) == (width is None):
            raise ValueError(f"halflife_images {halflife_images} and width {width}: give one of them")
        self._final = final
        self.halflife_images, self.ramp_ratio = halflife_images, ramp_ratio
        self._exponent = power_exponent(width) if width else None
        self._live = dict(model.named_parameters())
        self._average = {name: p.detach().clone() for name, p in self._live.items()}
        # Not weights, but part of a network's state: frequencies and filters, which never change.
        fixed = {name: tensor for name, tensor in model.state_dict().items() if name not in self._live}
        self._fixed = {name: tensor.detach().clone() for name, tensor in fixed.items()}

    @torch.no_grad()
    def update(self, batch_images: int, images_seen: int) -> None:
        """Move the average towards the network after an optimiser step (`images_seen` as in `beta`)."""
        kept = self._kept(batch_images, images_seen)
        torch._foreach_lerp_(list(self._average.values()), list(self._live.values()), 1 - kept)

    def _kept(self, batch_images: int, images_seen: int) -> float:
        if self._exponent is not None:
            return power_beta(batch_images, self._exponent, images_seen)
        if self.halflife_images is None:
            return self._final or 0.0
        return beta(batch_images, self.halflife_images, images_seen, self.ramp_ratio, self._final)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights under the network's own names (not copied)."""
        return self._average | self._fixed

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        whole = self.state_dict()
        if state.keys() != whole.keys():
            wrong = sorted(state.keys() ^ whole.keys())
            raise ValueError(
                f"the average in this checkpoint is of another network: {len(wrong)} names differ, e.g. {wrong[:3]}"
            )
        for name, tensor in whole.items():
            tensor.copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside this block the network computes with the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, live in self._live.items():
            live.data, self._average[name] = self._average[name], live.data
