"""Animated emoji of packages: made-up archives of the real shape under the real names, with their own hashes."""

import base64
import dataclasses
import hashlib
import json

import pytest
from PIL import Image
from test_clips import animated, drawings
from test_drawings import CHARACTERS, REFERENCE
from test_packages import tgz
from test_preprocess import saved
from test_shards import make_data

from mdm.data.batches.reader import Pictures
from mdm.data.shards.shard import read_index
from mdm.data.sources import drawing_sets
from mdm.data.sources import emoji_clips as emoji
from mdm.data.sources.drawing_concepts import Dictionary
from mdm.files.atomic import ArtifactError, read_json


def published(path):
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two packages of clips and the one that names what they show."""
    noto = drawing_sets.SETS["noto"]
    path = tgz(tmp_path / noto.package.file, **{
        "package/icons.json": json.dumps(REFERENCE).encode(), "package/chars.json": json.dumps(CHARACTERS).encode(),
    })  # fmt: skip
    package = dataclasses.replace(noto.package, published=published(path))
    monkeypatch.setitem(drawing_sets.SETS, "noto", dataclasses.replace(noto, package=package))
    clip, still = animated(drawings()), saved(Image.new("RGB", (32, 32)), "WEBP")
    contents = (
        {"1f408.webp": clip, "1f346.webp": animated(drawings((0, 200, 0))), "1f1f9-1f1ed.webp": still, ".gitkeep": b""},
        {"1f468-1f3ff-200d-1f33e.webp": clip, "1f3af-fe0f.webp": animated(drawings(frames=2)), "1f9ff.webp": clip},
    )
    packages = []
    for package, files in zip(emoji.PACKAGES, contents, strict=False):
        path = tgz(tmp_path / package.file, **{f"package/assets/{name}": data for name, data in files.items()})
        packages.append(dataclasses.replace(package, published=published(path)))
    monkeypatch.setattr(emoji, "PACKAGES", tuple(packages))
    return tmp_path


def rows(folder, **more):
    return list(emoji.index(emoji.Settings(num_images=9, resolution=32, frames=4, packages=str(folder), **more)))


def test_clips_that_move_and_have_a_name(folder):
    assert {(row.caption, row.columns["file"]) for row in rows(folder)} == {
        ("an animated emoji of cat", "1f408.webp"), ("an animated emoji of eggplant", "1f346.webp"),
        ("an animated emoji of bullseye", "1f3af-fe0f.webp"),
        ("an animated emoji of man farmer, dark skin tone", "1f468-1f3ff-200d-1f33e.webp"),
    }  # fmt: skip
    assert len(rows(folder, skin_tones=False)) == 3
    parts = [rows(folder, part=part, validation_every=2) for part in ("train", "validation")]
    assert sum(map(len, parts)) == 4 and not set.intersection(*({r.columns["concept"] for r in part} for part in parts))


def test_they_become_a_data_set_and_short_ones_are_counted(folder):
    more = {"source": "emoji-clips", "num_images": 4, "resolution": 32, "frames": 4, "packages": str(folder)}
    with pytest.raises(ArtifactError, match=r"1f3af-fe0f\.webp \(too short\)"):
        make_data(folder, **more)
    path = make_data(folder, min_success=0.5, **more)
    manifest, pictures = read_json(path.with_name("manifest.json")), Pictures(path.parent)
    assert manifest["failures"] == {"too short": 1} and manifest["frames"] == 4 and manifest["licences"] == {"MIT": 3}
    captions = [row.caption for row in read_index(path.parent)]
    assert {pictures.caption(k) for k in range(3)} < set(captions) and pictures.image(0).shape == (4, 32, 32, 3)


def test_code_points_with_and_without_selectors_name_the_same():
    names = Dictionary(REFERENCE, {**CHARACTERS, "1f441-fe0f": "eye"})
    assert names.of_code("1f441").name == names.of_code("1f441-fe0f").name == "eye"
    assert names.of_code("1f468-1f3ff-200d-1f33e").words == "man farmer, dark skin tone"
    assert names.of_code("1f1e6") is None
