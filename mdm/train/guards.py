"""What ends a training, said so that a person knows what to change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from mdm.config import TrainConfig
from mdm.config.sizes import Size
from mdm.files.atomic import ArtifactError
from mdm.train.checkpoint import Autosaves
from mdm.train.ranks import Ranks
from mdm.train.state import TrainingState


class Finite:
    """Remembers losses and gradients and looks at them now and then, so that no step waits for its own numbers."""

    def __init__(
        self, config: TrainConfig, resolutions: Sequence[Size], autosaves: Autosaves, state: TrainingState
    ) -> None:
        self._config, self._levels = config, [f"{size} px" for size in resolutions]
        self._autosaves, self._begun = autosaves, state.images
        self._seen: list[tuple[int, Tensor]] = []

    def note(self, images: int, per_level: Tensor, norm: Tensor) -> None:
        self._seen.append((images, torch.cat([norm.reshape(1), per_level])))

    def check(self, state: TrainingState) -> None:
        """Training on NaN is lost time; every save was made before it."""
        seen, self._seen = self._seen, []
        finite = torch.stack([numbers for _, numbers in seen]).isfinite().tolist() if seen else []
        bad = [(images, row) for (images, _), row in zip(seen, finite, strict=True) if not all(row)]
        going_on = self._config.skip_nonfinite or self._config.sanitize_gradients
        if bad and (not going_on or state.skipped > self._config.skip_nonfinite):
            raise ArtifactError(self._message(*bad[0], state.skipped))
        done = "its gradient was made finite" if self._config.sanitize_gradients else "is left out"
        for images, _ in bad:
            print(f"warning: the step before image {images:,} was not finite and {done}", flush=True)

    def _message(self, images: int, finite: Sequence[bool], skipped: int) -> str:
        batch, allowed = self._config.batch_images, self._config.skip_nonfinite
        levels = [name for name, good in zip(self._levels, finite[1:], strict=True) if not good]
        where = f"loss of the level {', '.join(levels)}" if levels else "gradient (every loss is finite)"
        also = f", the {skipped}th such step where train.skip_nonfinite allows {allowed}" if allowed else ""
        last = self._autosaves.newest()
        kept = f"the last good checkpoint is {last}" if last else f"the slice began at {self._begun:,} images"
        return (
            f"not finite: {where}, in step {images // batch:,} (images {images - batch:,} to {images - 1:,}){also}; "
            f"{kept}. Lower train.learning_rate, raise train.warmup_images, or write precision: float32; "
            "train.skip_nonfinite: 10 would leave up to ten such steps out"
        )


@contextmanager
def advising_on_memory(config: TrainConfig, ranks: Ranks, accumulate: int) -> Iterator[None]:
    """A step that does not fit says what would make it fit."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
            raise
        rows = config.batch_images // (ranks.world * accumulate)
        place = f"GPU {ranks.device.index}" if ranks.device.type == "cuda" else "this machine"
        raise ArtifactError(
            f"{place} has too little memory for a step of {rows} pictures at a time. With the same weights: "
            f"resources.accumulate: {2 * accumulate} (fewer at a time), resources.recompute (levels that keep no "
            "activations), more gpus or nodes, shard_optimizer: true among several. With other weights: "
            "train.precision: bf16. `mdm plan --memory` shows what each level takes. "
            f"({str(error).splitlines()[0]})"
        ) from error
