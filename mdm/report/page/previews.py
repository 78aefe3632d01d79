"""Grids that a training drew on its way (resources.preview_images), from the same noise each time."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mdm.report.collect import Artifacts
from mdm.report.figures import gallery
from mdm.study.study import Study

SHOWN = 4  # of a stage, spread evenly from the first to the last


@dataclass(frozen=True)
class Grid:
    stage: str
    images: int
    uri: str
    path: str


def grids(study: Study, artifacts: Artifacts) -> list[Grid]:
    """Of the first run's stages, in the order they were drawn; [] where no stage drew any."""
    found = []
    for stage in study.runs[0].stages:
        folder = f"{stage.artifact}/progress/samples"
        paths = sorted((artifacts.root / folder).glob("[0-9]*.png"))
        places = np.linspace(0, len(paths) - 1, min(SHOWN, len(paths))).round().astype(int)
        for path in (paths[place] for place in places):
            with Image.open(path) as picture:
                uri = gallery.data_uri(np.asarray(picture.convert("RGB")))
            found.append(Grid(stage.name, int(path.stem), uri, f"{folder}/{path.name}"))
    return found
