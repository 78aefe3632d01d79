"""Where ticks and grids of pictures may go besides our own files: TensorBoard, Weights & Biases. Off by default.

Chosen by the person who runs a training (MDM_LOGGERS=tensorboard,wandb), not by the study: they change no number.
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mdm.config import StudyError, nearest
from mdm.config.recipe import StageRecipe

VARIABLE = "MDM_LOGGERS"
NO_HOST = "undisclosed"


class TensorBoard:
    """Event files in progress/tensorboard; `tensorboard --logdir results/train` shows every stage."""

    def __init__(self, folder: Path, recipe: StageRecipe, images: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What an interrupted slice wrote after its last save happened on weights that no longer exist.
        self._writer = SummaryWriter(folder / "tensorboard", purge_step=images + 1)

    def numbers(self, images: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, images)
        self._writer.flush()

    def picture(self, images: int, pixels: np.ndarray) -> None:
        self._writer.add_image("samples", pixels, images, dataformats="HWC")
        self._writer.flush()


class WeightsAndBiases:
    """A run named after the stage's folder; W&B's own variables (WANDB_MODE, WANDB_PROJECT, ...) apply."""

    def __init__(self, folder: Path, recipe: StageRecipe, images: int) -> None:
        import wandb

        name, project = folder.parent.name, os.environ.get("WANDB_PROJECT", "mdm")
        # Neither host name nor command line nor console leave the machine.
        quiet = wandb.Settings(
            x_disable_meta=True, x_disable_machine_info=True, host=NO_HOST, console="off", silent=True
        )  # fmt: skip
        try:
            self._run = wandb.init(
                project=project, id=name, name=name, resume="allow", dir=folder, config=recipe.plain(), settings=quiet
            )
        except wandb.Error as error:
            raise StudyError(
                f"W&B cannot start ({error}); log in with `wandb login`, or set WANDB_MODE=offline"
            ) from None
        self._run.define_metric("images")
        self._run.define_metric("*", step_metric="images")

    def numbers(self, images: int, values: Mapping[str, float]) -> None:
        self._run.log({"images": images, **values})

    def picture(self, images: int, pixels: np.ndarray) -> None:
        import wandb

        self._run.log({"images": images, "samples": wandb.Image(pixels)})


Logger = TensorBoard | WeightsAndBiases  # a resumed training may tell them some image counts again
LOGGERS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}  # by the package that each needs


def open_loggers(folder: Path, recipe: StageRecipe, images: int) -> list[Logger]:
    """What MDM_LOGGERS names; `folder` is the stage's progress folder, `images` where training continues."""
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    for name in names:
        if name not in LOGGERS:
            raise StudyError(
                f"{VARIABLE}={os.environ[VARIABLE]}: no logger is called '{name}'; {nearest(name, LOGGERS)}"
            )
        if find_spec(name) is None:
            raise StudyError(
                f"{VARIABLE} asks for {name}, which is not installed; run `pip install {name}`, or take {name} out of "
                f"{VARIABLE}"
            )
    return [LOGGERS[name](folder, recipe, images) for name in dict.fromkeys(names)]
