"""Data sets at the edge: nothing arrived, one picture, full disks."""

import resource
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from picture_server import serving
from test_download import indexed
from test_own_folders import folder_with
from test_shards import make_data, make_recipe

from mdm.config import StudyError
from mdm.data.batches.loader import Loader
from mdm.data.batches.reader import Pictures
from mdm.data.rows import Row
from mdm.data.shards.journal import Stored
from mdm.data.shards.shard import _check_success, index_data, write_manifest, write_shard
from mdm.data.sources import ffhq
from mdm.files.atomic import ArtifactError


@pytest.mark.parametrize("rule", ["none", "files", "looks"])
def test_a_shard_of_which_nothing_arrived(tmp_path, rule):
    """The last shard may be one dead address; min_success: 0 then lets the rest be used."""
    names = ["good-0", "good-1", "missing-1"]
    with serving() as server:
        path = indexed(tmp_path, server.base, names, 2, min_success=0, duplicates=rule)
        for shard in (0, 1):
            write_shard(path, shard)
    manifest = write_manifest(path)
    kept = 1 if rule == "looks" else 2  # both are of one colour
    assert [shard["samples"] for shard in manifest["shards"]] == [kept, 0] and manifest["fetched_fraction"] == 0.666667
    seen = Loader(path.parent, None, 4, 0, 32).batch(0)
    assert sorted(seen.ids.tolist()) == {1: [0, 0, 0, 0], 2: [0, 0, 1, 1]}[kept]


def test_a_data_set_without_any_picture_is_refused(tmp_path):
    with serving() as server:
        path = indexed(tmp_path, server.base, ["missing-1", "missing-2"], min_success=0)
        write_shard(path, 0)
    with pytest.raises(ArtifactError, match=r"no picture at all .*2 x http 404"):
        write_manifest(path)


def test_just_enough_is_enough(tmp_path):
    """0.55 x 100 is 55.00000000000001."""
    rows = [Row(f"{k:03d}", "") for k in range(100)]
    outcomes = {row.key: Stored("png", 0, 1, "") if k < 55 else "http 404" for k, row in enumerate(rows)}
    _check_success(rows, outcomes, SimpleNamespace(min_success=0.55), "here")
    with pytest.raises(ArtifactError, match="only 55 of 100"):
        _check_success(rows, outcomes, SimpleNamespace(min_success=0.56), "here")


@pytest.mark.parametrize("images", [1, 8, 9])
def test_fewer_pictures_than_a_batch_and_exactly_one_shard(tmp_path, images):
    path = make_data(tmp_path, num_images=images, resolution=8)
    loader = Loader(path.parent, None, 32, 0, 8)
    seen = np.concatenate([loader.batch(32 * k).ids.numpy() for k in range(images)])
    assert (np.bincount(seen, minlength=images) == 32).all()
    assert len(Pictures(path.parent)) == images


def test_a_full_disk_is_told_and_loses_nothing(tmp_path):
    folder = folder_with(tmp_path / "mine", *(f"{k}.png" for k in range(8)))
    for k in range(8):
        (folder / f"{k}.txt").write_text("x")
    path = make_recipe(tmp_path, source="folder", path=str(folder), num_images=8, resolution=32)
    index_data(path)
    full = subprocess.run(
        [sys.executable, "-m", "mdm", "shard", str(path), "--shard", "0"], capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700)),
    )  # fmt: skip
    assert full.returncode == 2 and "cannot be written" in full.stderr and "is kept" in full.stderr, full.stderr
    write_shard(path, 0)
    assert write_manifest(path)["samples"] == 8


def test_the_same_portrait_twice_is_not_chosen_by_chance(tmp_path):
    folder_with(tmp_path, "images1024x1024/00000/00001.png", "thumbnails128x128/00000/00001.png")
    settings = ffhq.Settings(path=str(tmp_path), num_images=1, resolution=16)
    with pytest.raises(ArtifactError, match=r"00001\.png.* twice"):
        list(ffhq.index(settings))


def test_a_limit_above_what_the_decoder_allows_is_refused(tmp_path):
    with pytest.raises(StudyError, match="max_pixels"):
        make_recipe(tmp_path, source="folder", path="x", num_images=1, resolution=8, max_pixels=200_000_000)
