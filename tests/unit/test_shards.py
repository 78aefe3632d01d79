"""Shards: reproducible, readable by webdataset, and trusted only when their hashes agree."""

import json
import os
import shutil

import numpy as np
import pytest

from mdm.config import StudyError
from mdm.config.recipe import DataRecipe
from mdm.data.batches.reader import Pictures
from mdm.data.shards.shard import index_data, read_index, write_manifest, write_shard
from mdm.data.sources import registry as sources
from mdm.data.sources.scenes.picture import render
from mdm.data.sources.scenes.scene import SceneSettings, labels, scene
from mdm.files.artifact import digest, read_recipe
from mdm.files.atomic import ArtifactError, read_json, write_json


def make_recipe(root, source="scenes", shard_images=8, **settings):
    """A data recipe in the folder that its digest names, and how to make it beside."""
    resolved = sources.resolve(source, settings, "here")
    recipe = DataRecipe(source=source, settings=resolved, shard_images=shard_images).plain()
    path = root / "data" / f"some-{digest(recipe)}" / "recipe.json"
    write_json(path, recipe)
    write_json(path.with_name("handling.json"), sources.handling(source, settings, "here"))
    return path


def make_data(root, **settings):
    path = make_recipe(root, **{"num_images": 20, "resolution": 16, **settings})
    index_data(path)
    for shard in range(len(sources.shard_names(read_recipe(path, DataRecipe)))):
        write_shard(path, shard)
    write_manifest(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("results"))


def test_index_lists_every_scene(data):
    rows = read_index(data.parent)
    chosen = SceneSettings(num_images=20, resolution=16)
    assert [row.key for row in rows] == [f"{id:08d}" for id in range(20)]
    assert rows[5].labels == labels(scene(0, 5, chosen))
    assert len(read_index(data.parent, 8, 16)) == 8


def test_shards_are_byte_for_byte_reproducible(data, tmp_path):
    copy = tmp_path / "data" / data.parent.name
    shutil.copytree(data.parent, copy)
    before = (copy / "shards/00001.tar").read_bytes()
    (copy / "shards/00001.tar").unlink()
    write_shard(copy / "recipe.json", 1)
    assert (copy / "shards/00001.tar").read_bytes() == before


def test_manifest_counts_and_hashes(data):
    manifest = read_json(data.parent / "manifest.json")
    assert manifest["samples"] == 20 and [s["samples"] for s in manifest["shards"]] == [8, 8, 4]
    assert manifest["resolution"] == 16 and manifest["failures"] == {} and len(manifest["digest"]) == 64


def test_webdataset_reads_the_shards(data):
    import webdataset

    urls = [str(path) for path in sorted((data.parent / "shards").glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert len(samples) == 20
    chosen = SceneSettings(num_images=20, resolution=16)
    np.testing.assert_array_equal(samples[9]["png"], render(scene(0, 9, chosen), 16))
    assert samples[9]["txt"] == read_index(data.parent)[9].caption
    assert samples[9]["json"]["labels"] == labels(scene(0, 9, chosen))


def test_reader_finds_every_sample(data):
    pictures, chosen = Pictures(data.parent), SceneSettings(num_images=20, resolution=16)
    rows = read_index(data.parent)
    for number in (0, 7, 8, 19):
        np.testing.assert_array_equal(pictures.image(number), render(scene(0, number, chosen), 16))
        assert (pictures.key(number), pictures.caption(number)) == (rows[number].key, rows[number].caption)
        assert pictures.labels(number) == rows[number].labels
    with pytest.raises(IndexError, match="0 to 19"):
        pictures.image(20)


def test_a_changed_shard_is_found(data, tmp_path):
    copy = tmp_path / "data" / data.parent.name
    shutil.copytree(data.parent, copy)
    content = bytearray((copy / "shards/00000.tar").read_bytes())
    content[600] ^= 1
    (copy / "shards/00000.tar").write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged or changed"):
        write_manifest(copy / "recipe.json")


def test_a_missing_shard_is_named(data, tmp_path):
    copy = tmp_path / "data" / data.parent.name
    shutil.copytree(data.parent, copy)
    (copy / "shards/00002.json").unlink()
    with pytest.raises(ArtifactError, match=r"00002\.json does not exist"):
        write_manifest(copy / "recipe.json")
    with pytest.raises(ArtifactError, match="there is no shard 3"):
        write_shard(copy / "recipe.json", 3)


def test_a_manifest_without_digest_is_refused(data, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data.parent, copy)
    manifest = read_json(copy / "manifest.json")
    del manifest["digest"]
    write_json(copy / "manifest.json", manifest)
    with pytest.raises(ArtifactError, match="lacks digest"):
        Pictures(copy)


def test_a_shard_without_index_says_what_to_do(tmp_path):
    path = make_recipe(tmp_path, num_images=4, resolution=8)
    with pytest.raises(ArtifactError, match="mdm index"):
        write_shard(path, 0)


def test_unknown_sources_and_settings_name_the_nearest():
    with pytest.raises(StudyError, match=r"data\.x\.source: .*did you mean 'scenes'"):
        sources.resolve("scene", {}, "laptop.yaml: data.x")
    with pytest.raises(StudyError, match="did you mean 'num_images'"):
        sources.resolve("scenes", {"num_image": 3, "resolution": 16}, "laptop.yaml: data.x")


def test_another_version_of_a_source_is_refused(tmp_path):
    recipe = read_recipe(make_recipe(tmp_path, num_images=4, resolution=8), DataRecipe)
    recipe.settings["version"] = 0
    with pytest.raises(ArtifactError, match="version 0"):
        sources.reopen(recipe, "recipe.json")


def folder_of_pictures(root, side=40):
    from PIL import Image

    root.mkdir()
    for name, colour in (("b", "red"), ("a", "blue"), ("c", "lime")):
        Image.new("RGB", (side + 20, side), colour).save(root / f"{name}.png")
        (root / f"{name}.txt").write_text(f"a {colour} wall\n")
    return root


def test_folder_source_with_texts_beside(tmp_path):
    path = make_data(tmp_path, source="folder", path=str(folder_of_pictures(tmp_path / "mine")), num_images=3)
    pictures = Pictures(path.parent)
    assert [pictures.caption(k) for k in range(3)] == ["a blue wall", "a red wall", "a lime wall"]
    assert pictures.image(2).tolist()[3][3] == [0, 255, 0]


@pytest.mark.parametrize(("name", "mark"), [("captions.csv", ","), ("captions.tsv", "\t")])
def test_folder_source_with_a_table(tmp_path, name, mark):
    folder = folder_of_pictures(tmp_path / "mine")
    (folder / name).write_text(f'file{mark}caption\nb.png{mark}"red, all of it"\na.png{mark}blue\n')
    path = make_data(tmp_path, source="folder", path=str(folder), num_images=2, captions=name)
    assert {Pictures(path.parent).caption(k) for k in range(2)} == {"red, all of it", "blue"}


def test_a_class_column_of_a_folder_becomes_a_label(tmp_path):
    folder = folder_of_pictures(tmp_path / "mine")
    (folder / "classes.csv").write_text("file,caption,class\nb.png,red,7\na.png,blue,0\n")
    path = make_data(tmp_path, source="folder", path=str(folder), num_images=2, captions="classes.csv")
    assert [Pictures(path.parent).labels(number) for number in range(2)] == [{"class": 0}, {"class": 7}]
    (folder / "classes.csv").write_text("file,caption,class\nb.png,red,dog\n")
    with pytest.raises(ArtifactError, match=r"class 'dog' of b\.png is not a number"):
        make_data(tmp_path, source="folder", path=str(folder), num_images=1, captions="classes.csv")


def test_folder_source_refuses_what_does_not_fit(tmp_path):
    folder = folder_of_pictures(tmp_path / "mine")
    with pytest.raises(ArtifactError, match="num_images is 5"):
        make_data(tmp_path, source="folder", path=str(folder), num_images=5)
    with pytest.raises(ArtifactError, match=r"only 0 of 3 .*too small"):
        make_data(tmp_path, source="folder", path=str(folder), num_images=3, resolution=64)
    with pytest.raises(ArtifactError, match="no folder"):
        make_data(tmp_path, source="folder", path=str(tmp_path / "none"), num_images=3)
    path = make_recipe(tmp_path, source="folder", path=str(folder), num_images=3, resolution=32)
    index_data(path)
    (folder / "a.png").write_bytes(b"changed")
    with pytest.raises(ArtifactError, match="changed since the index"):
        write_shard(path, 0)


def test_what_a_killed_writer_of_an_index_left_goes_after_a_day(tmp_path):
    path = make_recipe(tmp_path, num_images=4, resolution=8)
    old, young = (path.with_name(f".index.tsv.{pid}.tmp") for pid in (1, 2))
    for rest in (old, young):
        rest.write_text("half")
    os.utime(old, (1, 1))
    index_data(path)
    assert young.is_file() and not old.exists()


def test_records_are_json(data):
    record = json.loads((data.parent / "shards/00000.json").read_text())
    assert record["samples"] == record["rows"] == 8 and record["files"][0]["key"] == "00000000"
