"""From noisy pictures to the clean ones a guided network predicts, within bounds (docs/reference.md, section 14)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mdm.config import DiffusionConfig, SampleConfig
from mdm.diffusion.parameterisation import Level, parameterisation
from mdm.diffusion.path import Moment
from mdm.diffusion.preconditioning import Preconditioning
from mdm.diffusion.process import per_row
from mdm.diffusion.residual import completed


@dataclass(frozen=True)
class Prompt:
    """Condition of a batch: text [B,S,D] with mask [B,S], or labels [B]; all None: unconditional."""

    text: Tensor | None = None
    mask: Tensor | None = None
    labels: Tensor | None = None

    def expanded(self, batch: int) -> Prompt:
        """One condition repeated for the whole batch; a batch of them is left as it is."""
        parts = (self.text, self.mask, self.labels)
        return Prompt(*(p if p is None or len(p) == batch else p.expand(batch, *p.shape[1:]) for p in parts))

    def padded(self, length: int) -> Prompt:
        """Text filled up with masked zeros to `length` positions."""
        missing = 0 if self.text is None else length - self.text.shape[1]
        if not missing:
            return self
        if self.mask is None:
            raise ValueError("texts of different lengths need a mask")
        return Prompt(F.pad(self.text, (0, 0, 0, missing)), F.pad(self.mask, (0, missing)), self.labels)


def joined(first: Prompt, second: Prompt) -> Prompt:
    """Both conditions as one batch."""
    if second.text is None and second.labels is None:
        raise ValueError("guidance needs a condition to guide towards, text or labels; write guidance: 1 without one")
    length = max((p.text.shape[1] for p in (first, second) if p.text is not None), default=0)
    first, second = first.padded(length), second.padded(length)
    pairs = zip((first.text, first.mask, first.labels), (second.text, second.mask, second.labels), strict=True)
    parts = []
    for name, (a, b) in zip(("text", "mask", "labels"), pairs, strict=True):
        if (a is None) != (b is None):
            raise ValueError(f"guidance needs {name} for both the prompt and the negative prompt, or for neither")
        parts.append(None if a is None else torch.cat([a, b]))
    return Prompt(*parts)


def threshold(x0: Tensor, kind: str) -> Tensor:
    """Keep a predicted clean picture [B,3,H,W] or clip [B,T,3,H,W] in range."""
    if kind == "none":
        return x0
    if kind == "clip":
        return x0.clamp(-1, 1)
    share, highest = {"dynamic": (0.995, 100.0), "dynamic-deepfloyd": (0.95, 1.5)}[kind]
    limit = per_row(quantile(x0.abs().flatten(1), share).clamp(1, highest), x0)
    return x0.clamp(-limit, limit) / limit


def quantile(values: Tensor, share: float) -> Tensor:
    """Linearly interpolated quantile of each row, [B,n] -> [B]; torch.quantile refuses large pictures."""
    position = share * (values.shape[1] - 1)
    below = int(position)
    low = values.kthvalue(below + 1, dim=1).values
    high = values.kthvalue(min(below + 2, values.shape[1]), dim=1).values
    return torch.lerp(low, high, position - below)


def guided(negative: Tensor, positive: Tensor, weight: float, rescale: float) -> Tensor:
    """Classifier-free guidance of one level [B,3,H,W]; `rescale` restores its deviation (Lin et al. 2024)."""
    said = negative + weight * (positive - negative)
    if not rescale:
        return said
    wanted, seen = (per_row(p.flatten(1).std(dim=1), p) for p in (positive, said))
    return said * (rescale * wanted / seen + 1 - rescale)


class Denoiser:
    """The clean pictures of all levels that the guided network sees in noisy ones."""

    def __init__(
        self,
        model: Callable[..., list[Tensor]],
        config: SampleConfig,
        diffusion: DiffusionConfig,
        prompt: Prompt,
        negative: Prompt,
        batch: int,
        guide: Callable[..., list[Tensor]] | None = None,
    ) -> None:
        self.model, self.guide, self.config, self.way = model, guide, config, parameterisation(diffusion)
        self.residual = diffusion.residual_levels
        self.prompt = prompt.expanded(batch)
        # Weight 1 means the prompt alone: no second half of the batch.
        self.both = joined(negative.expanded(batch), self.prompt) if config.guidance != 1 else None

    def start(self, noises: list[Tensor], moment: Moment) -> list[Tensor]:
        """Unit noise of every level -> the pictures with which sampling begins."""
        return [self.way.start(z, level) for z, level in zip(noises, self._levels(moment), strict=True)]

    def _levels(self, moment: Moment) -> list[Level]:
        return [self.way.of_gamma(gamma) for gamma in moment.gammas]

    def __call__(self, pictures: list[Tensor], moment: Moment) -> list[Tensor]:
        """Noisy pictures at a moment -> clean pictures, highest first."""
        levels = self._levels(moment)
        seen = [self.way.seen(x, level) for x, level in zip(pictures, levels, strict=True)]
        rows = zip(self._led(seen, moment), pictures, levels, strict=True)
        clean = [self.way.clean(said, x, level) for said, x, level in rows]
        return [threshold(x0, self.config.threshold) for x0 in clean]

    def at_sigma(self, way: Preconditioning, y: Tensor, sigma: Tensor, share: float) -> Tensor:
        """The clean pictures [B,3,R,R] of y = x0 + sigma epsilon of a single level, not kept within any range."""

        def network(seen: Tensor, told: Tensor) -> Tensor:
            return self._led([seen], Moment(float(told[0]), share, torch.empty(0)))[0]

        return way.denoise(network, y, sigma)

    def _led(self, seen: list[Tensor], moment: Moment) -> list[Tensor]:
        """Lead away from the answer of a worse network, the guide (autoguidance, Karras et al. 2024)."""
        said = self._guided(seen, moment)
        if self.guide is None or not self._inside_interval(moment):
            return said
        worse = self._call(self.guide, seen, moment, self.prompt)
        return [bad + self.config.autoguidance * (good - bad) for good, bad in zip(said, worse, strict=True)]

    def _guided(self, seen: list[Tensor], moment: Moment) -> list[Tensor]:
        if self.both is None or not self._inside_interval(moment):
            return self._call(self.model, seen, moment, self.prompt)
        twice = [torch.cat([x, x]) for x in seen]
        halves = [said.chunk(2) for said in self._call(self.model, twice, moment, self.both)]
        weight, rescale = self.config.guidance, self.config.guidance_rescale
        return [guided(negative, positive, weight, rescale) for negative, positive in halves]

    def _call(
        self, model: Callable[..., list[Tensor]], seen: list[Tensor], moment: Moment, prompt: Prompt
    ) -> list[Tensor]:
        told = torch.full((len(seen[0]),), moment.told, device=seen[0].device)
        with torch.autocast(told.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            predictions = model(seen, told, prompt.text, prompt.mask, labels=prompt.labels)
        answers = [said.float() for said in predictions]
        return completed(answers) if self.residual else answers

    def _inside_interval(self, moment: Moment) -> bool:
        if self.config.guidance_interval is None:
            return True
        low, high = self.config.guidance_interval
        return low <= moment.share <= high
