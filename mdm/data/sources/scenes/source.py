"""The embedded source: procedural scenes, no network, no licence to mind."""

from collections.abc import Iterator

from mdm.data.rows import Outcomes, Row, png
from mdm.data.sources import factors
from mdm.data.sources.scenes import language, picture
from mdm.data.sources.scenes import scene as scenes
from mdm.data.sources.scenes.scene import SCENES_VERSION, SceneSettings

VERSION = SCENES_VERSION
DUPLICATES_IN_MANIFEST = True
LICENCE = "CC0-1.0 (made by this repository)"
Settings = SceneSettings


def index(settings: SceneSettings) -> Iterator[Row]:
    """Yield a row for each scene; the key is the scene's id, or for a copy the next one that is free."""
    rows = factors.labelled(_rows(settings), settings, lambda row: scenes.main_class(int(row.key), settings))
    return factors.planted(rows, settings)


def label_count(settings: SceneSettings) -> int | None:
    """Return what `model.classes` must be at least; 0 where there is no label `class`."""
    return factors.label_count(settings, settings.num_images, scenes.main_classes(settings))


def _rows(settings: SceneSettings) -> Iterator[Row]:
    for id in range(settings.num_images):
        scene = scenes.scene(settings.seed, id, settings)
        yield Row(f"{id:08d}", language.caption(scene, settings.phrasings), scenes.labels(scene))


def pictures(rows: list[Row], settings: SceneSettings) -> Outcomes:
    for row in rows:
        scene = scenes.scene(settings.seed, int(factors.original(row)), settings)
        yield row.key, png(picture.render(scene, settings.resolution))
