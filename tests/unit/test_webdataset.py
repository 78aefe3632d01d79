"""Tars as webdataset writes them, honest and hostile ones."""

import io
import json
import tarfile

import numpy as np
import pytest
from picture_server import jpeg
from test_shards import make_data, make_recipe

from mdm.data.batches.reader import Pictures
from mdm.data.shards.shard import index_data, read_index, write_shard
from mdm.files.atomic import ArtifactError, read_json


def add(tar, name, data=b"", **header):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    for key, value in header.items():
        setattr(entry, key, value)
    tar.addfile(entry, io.BytesIO(data))


def tar_of(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, files in samples.items():
            for extension, data in files.items():
                add(tar, f"{name}.{extension}", data if isinstance(data, bytes) else json.dumps(data).encode())
    return path


def sample(number, **more):
    colour = (number * 40 % 256, 30, 60)
    return {"jpg": jpeg(40, colour), "txt": f"number {number}".encode(), "json": {"similarity": number / 10}, **more}


def snapshot(folder, tars=2, each=6):
    for k in range(tars):
        tar_of(folder / f"set-{k:03d}.tar", {f"{k}/{n:04d}": sample(k * each + n) for n in range(each)})
    return folder


def made(root, folder, **settings):
    return make_data(root, source="webdataset", path=str(folder), **{"num_images": 12, "resolution": 32, **settings})


def test_a_snapshot_becomes_shards(tmp_path):
    path = made(tmp_path, snapshot(tmp_path / "wds"), stored="png")
    pictures = Pictures(path.parent)
    assert [pictures.caption(k) for k in range(12)] == [f"number {k}" for k in range(12)]
    assert np.abs(pictures.image(5).astype(int) - [200, 30, 60]).max() < 6
    assert read_json(path.with_name("manifest.json"))["samples"] == 12


def test_our_own_shards_are_such_tars(tmp_path):
    first = made(tmp_path, snapshot(tmp_path / "wds"), stored="png")
    again = made(tmp_path, first.parent / "shards", stored="png")
    one, two = Pictures(first.parent), Pictures(again.parent)
    assert all((one.image(k) == two.image(k)).all() and one.caption(k) == two.caption(k) for k in range(12))


def test_one_tar_captions_from_json_and_classes(tmp_path):
    samples = {f"s{k}": {"cls": str(k).encode(), "jpg": jpeg(40), "json": {"text": f"the {k}\u00e9"}} for k in range(3)}
    tar_of(tmp_path / "wds/a.tar", samples)
    settings = {"num_images": 3, "caption": "json.text"}
    path = made(tmp_path, tmp_path / "wds/a.tar", class_in="cls", **settings)
    assert [(row.caption, row.labels) for row in read_index(path.parent)][2] == ("the 2\u00e9", {"class": 2})
    assert read_index(made(tmp_path, tmp_path / "wds/a.tar", **{**settings, "caption": "none"}).parent)[0].caption == ""
    with pytest.raises(ArtifactError, match=r"sample s0 has no txt; correct `caption`.*json\.text"):
        made(tmp_path, tmp_path / "wds/a.tar", num_images=3)
    with pytest.raises(ArtifactError, match=r"class 'the 0.' is not a number"):
        made(tmp_path, tmp_path / "wds/a.tar", class_in="json.text", **settings)


def test_parts_and_filters_by_json(tmp_path):
    folder = snapshot(tmp_path / "wds", tars=4, each=25)
    found = {}
    for part, count in (("train", 72), ("validation", 28)):
        recipe = make_recipe(
            tmp_path, "webdataset", path=str(folder), num_images=count, resolution=32, part=part, validation_every=4
        )
        index_data(recipe)
        found[part] = {row.caption for row in read_index(recipe.parent)}
    assert not found["train"] & found["validation"] and len(found["train"] | found["validation"]) == 100
    path = made(tmp_path, folder, num_images=2, filters=[{"column": "similarity", "least": 1.95, "most": 2.15}])
    assert [row.caption for row in read_index(path.parent)] == ["number 20", "number 21"]
    with pytest.raises(ArtifactError, match="no picture is wanted"):
        made(tmp_path, folder, num_images=2, filters=[{"column": "similarty", "least": 1.95}])


def test_what_is_no_plain_file_is_never_read(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg(40))
    (tmp_path / "wds").mkdir()
    with tarfile.open(tmp_path / "wds/a.tar", "w") as tar:
        add(tar, "link.jpg", type=tarfile.SYMTYPE, linkname=str(secret))
        add(tar, "hard.jpg", type=tarfile.LNKTYPE, linkname=str(secret))
        add(tar, "device.jpg", type=tarfile.CHRTYPE)
        add(tar, "folder.jpg", type=tarfile.DIRTYPE)
        add(tar, "../../outside.jpg", jpeg(40))
        add(tar, "../../outside.txt", b"outside")
        add(tar, ".hidden", b"no sample")
    path = made(tmp_path, tmp_path / "wds", num_images=1)
    assert [row.columns["file"] for row in read_index(path.parent)] == ["../../outside"]
    assert not list(tmp_path.glob("**/outside*")) and not list(tmp_path.parent.glob("outside*"))


def test_damaged_and_strange_tars_are_refused(tmp_path):
    good = tar_of(tmp_path / "good.tar", {f"s{k}": sample(k) for k in range(3)}).read_bytes()
    with tarfile.open(tmp_path / "good.tar") as tar:
        middle = tar.getmembers()[3].offset
    wds = tmp_path / "wds"
    wds.mkdir()
    for content, message in (
        (good[:3000], "damaged"),
        (b"nonsense" * 200, "damaged or no plain tar"),
        (b"\x1f\x8b" + good, "compressed"),
        (good[:middle] + b"?" * 512 + good[middle + 512 :], "is no header"),
    ):
        (wds / "a.tar").write_bytes(content)
        with pytest.raises(ArtifactError, match=message):
            made(tmp_path, wds, num_images=3)
    with tarfile.open(wds / "a.tar", "w") as tar:
        for name in ("x.jpg", "y.jpg", "x.txt"):
            add(tar, name, jpeg(40))
    with pytest.raises(ArtifactError, match=r"files of x do not stand together"):
        made(tmp_path, wds, num_images=3, caption="none")
    tar_of(wds / "a.tar", {"x": {"jpg": jpeg(40), "txt": b"x" * 1_000_001}})
    with pytest.raises(ArtifactError, match="1,000,001 bytes"):
        made(tmp_path, wds, num_images=1)
    tar_of(wds / "a.tar", {"x": {"jpg": jpeg(40), "txt": b"x", "json": b"{"}})
    with pytest.raises(ArtifactError, match="json cannot be read"):
        made(tmp_path, wds, num_images=1)
    with tarfile.open(wds / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "x.jpg", jpeg(40), pax_headers={"comment": "x" * 2_000_000})
    with pytest.raises(ArtifactError, match=r"a header of 2,000,\d+ bytes"):
        made(tmp_path, wds, num_images=1)
    with pytest.raises(ArtifactError, match=r"there is no tar train-\*"):
        made(tmp_path, wds, num_images=1, files="train-*")


def test_wherever_a_tar_is_cut_off_it_is_told(tmp_path):
    good = tar_of(tmp_path / "good.tar", {f"s{k}": sample(k) for k in range(2)}).read_bytes()
    path = tmp_path / "wds" / "a.tar"
    path.parent.mkdir()
    with tarfile.open(tmp_path / "good.tar") as tar:
        end = max(entry.offset_data + entry.size for entry in tar)
    for cut in range(1, end, 97):
        path.write_bytes(good[:cut])
        with pytest.raises(ArtifactError, match=r"damaged|has 1 pictures|no picture is wanted"):
            made(tmp_path, path, num_images=2, caption="none")


def test_samples_without_a_usable_picture_are_counted(tmp_path):
    samples = {f"s{k}": sample(k) for k in range(6)}
    samples |= {"s6": {"json": {"about": "the set"}}, "s7": sample(7, jpg=b"<html>")}
    tar_of(tmp_path / "wds/a.tar", samples)
    with pytest.raises(ArtifactError, match=r"only 6 of 8 .*s6 \(not a picture\), s7"):
        made(tmp_path, tmp_path / "wds", num_images=8)
    manifest = read_json(made(tmp_path, tmp_path / "wds", num_images=8, min_success=0.5).with_name("manifest.json"))
    assert manifest["failures"] == {"not a picture": 2} and manifest["samples"] == 6


def test_a_tar_that_changed_or_went_is_noticed(tmp_path):
    folder = snapshot(tmp_path / "wds", tars=1)
    path = make_recipe(tmp_path, "webdataset", path=str(folder), num_images=6, resolution=32)
    index_data(path)
    tar_of(folder / "set-000.tar", {f"0/{n:04d}": sample(n + 1) for n in range(6)})
    with pytest.raises(ArtifactError, match="changed since the index"):
        write_shard(path, 0)
    (folder / "set-000.tar").rename(folder / "other.tar")
    with pytest.raises(ArtifactError, match=r"set-000\.tar was there when"):
        write_shard(path, 0)


def test_duplicates_are_left_out_by_the_manifest(tmp_path):
    tar_of(tmp_path / "wds/a.tar", {"a": sample(1), "b": sample(1), "c": sample(3)})
    path = made(tmp_path, tmp_path / "wds", num_images=3, duplicates="files")
    assert read_json(path.with_name("manifest.json"))["duplicates"] == {"files": 1}
