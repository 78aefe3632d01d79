"""Fetching data sets from lists of addresses, against a real server on this machine."""

import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from picture_server import jpeg, serving
from PIL import Image
from repository import HANG_SECONDS
from test_preprocess import saved, smooth
from test_shards import make_recipe

from mdm.config import StudyError
from mdm.data.batches.loader import Loader
from mdm.data.batches.reader import Pictures
from mdm.data.pictures.preprocess import PictureSettings, pixels
from mdm.data.rows import Picture
from mdm.data.shards.shard import index_data, read_index, write_manifest, write_shard, write_shards
from mdm.data.sources import registry as sources
from mdm.files.atomic import ArtifactError, read_json
from mdm.files.hashes import sha256_file
from mdm.study import study

QUICK = {"allowed_networks": ["127.0.0.0/8"], "backoff_seconds": 0.01, "host_pause_seconds": 0.0, "threads": 8}
QUICK["timeout_seconds"] = HANG_SECONDS  # of an answer, which comes late on a busy machine
NAMES = [f"good-{k}" for k in range(12)] + ["missing-1", "missing-2", "words-1", "small-1"]


@pytest.fixture
def server():
    with serving() as httpd:
        yield httpd


def write_list(folder, base, names, header=True):
    path = folder / "list.tsv"
    lines = ["url\tcaption"] if header else []
    path.write_text("\n".join(lines + [f'{base}/{name}\tsaid "{name}"' for name in names]) + "\n")
    return {"index": str(path), "sha256": sha256_file(path), "num_images": len(names), "resolution": 32}


def indexed(folder, base, names, shard_images=16, **settings):
    path = make_recipe(folder, "cc12m", shard_images, **write_list(folder, base, names), **{**QUICK, **settings})
    index_data(path)
    return path


def test_a_shard_is_fetched_and_counted(server, tmp_path):
    path = indexed(tmp_path, server.base, NAMES, min_success=0.7)
    write_shard(path, 0)
    manifest = write_manifest(path)
    assert (manifest["fetched"], manifest["samples"], manifest["fetched_fraction"]) == (16, 12, 0.75)
    assert manifest["failures"] == {"http 404": 2, "not a picture": 1, "too small": 1}
    assert sum(manifest["licences"].values()) == 12 and manifest["handling"]["min_success"] == 0.7
    assert read_json(path.parent / "shards/00000.json")["failed"]["000000015"] == "too small"
    pictures = Pictures(path.parent)
    assert [pictures.caption(k) for k in range(12)] == [f'said "good-{k}"' for k in range(12)]
    assert pictures.image(3).shape == (32, 32, 3)
    assert abs(int(pictures.image(3)[16, 16, 0]) - sum(b"3") * 37 % 256) < 8
    assert sorted(os.listdir(path.parent / "shards")) == ["00000.json", "00000.tar"]


def test_everything_that_goes_wrong_is_told_apart(server, tmp_path):
    ways = {
        "missing": "http 404", "page": "wrong type", "words": "not a picture", "broken": "broken picture",
        "small": "too small", "bomb": "too many pixels", "endless": "too large", "announced": "too large",
        "short": "broken answer", "loop": "too many redirects", "busy-9": "http 5xx",
        "to-http://10.0.0.1/": "refused address", "to-http://169.254.169.254/": "refused address",
        "to-http://[::1]/": "refused address", "owner": "owner opted out", "status-410": "http 410",
    }  # fmt: skip
    names = [*ways, "good-1", "busy-2"]
    path = indexed(tmp_path, server.base, names, 32, min_success=0.1, max_bytes=10**6)
    write_shard(path, 0)
    record = read_json(path.parent / "shards/00000.json")
    assert record["failed"] == {f"{k:09d}": failure for k, failure in enumerate(ways.values())}
    assert [place["key"] for place in record["files"]] == ["000000016", "000000017"]
    # Only what may go away by itself was asked again, and no more often than the settings say.
    again = {name: times for name, times in server.asked.items() if times > 1 and not name.startswith("loop")}
    assert again == {"short": 3, "busy-9": 3, "busy-2": 3}


def test_an_answer_that_comes_too_slowly_is_asked_for_again(server, tmp_path):
    path = indexed(tmp_path, server.base, ["drip"], min_success=0.1, timeout_seconds=1)
    with pytest.raises(ArtifactError, match=r"only 0 of 1 pictures .*\(1 x timeout"):
        write_shard(path, 0)
    assert server.asked == {"drip": 3}


@pytest.mark.slow
def test_img2dataset_fetches_trusted_lists(server, tmp_path):
    listed = write_list(tmp_path, server.base, NAMES)
    path = make_recipe(tmp_path, "cc12m", 16, **listed, min_success=0.7, fetcher="img2dataset", threads=8)
    index_data(path)
    write_shard(path, 0)
    assert write_manifest(path)["failures"] == {"http 404": 2, "not a picture": 1, "too small": 1}


def test_too_many_failures_are_an_error_and_the_next_try_asks_only_for_the_rest(server, tmp_path):
    names = ["good-1", "missing-1", *(f"busy-99-{k}" for k in range(4))]
    path = indexed(tmp_path, server.base, names, min_success=0.5, retries=0)
    with pytest.raises(ArtifactError, match=r"only 1 of 6 pictures .* asks for 50% \(4 x http 5xx, 1 x http 404"):
        write_shard(path, 0)
    assert not (path.parent / "shards/00000.tar").exists()
    server.healed = True
    write_shard(path, 0)
    assert server.asked == {name: 2 if name.startswith("busy") else 1 for name in names}
    assert read_json(path.parent / "shards/00000.json")["failures"] == {"http 404": 1}
    write_shard(path, 0)
    assert server.asked.total() == 10  # a whole shard is left alone


def test_a_source_that_forgets_rows_is_noticed(tmp_path, monkeypatch):
    def poor(rows, settings):
        yield rows[0].key, Picture("jpg", jpeg(40))

    monkeypatch.setattr("mdm.data.sources.addresses.pictures", poor)
    path = indexed(tmp_path, "http://localhost", NAMES[:4])
    with pytest.raises(ArtifactError, match=r"only 1 of 4 pictures .* \(3 x no answer"):
        write_shard(path, 0)


def test_an_error_of_the_program_ends_the_shard(server, tmp_path, monkeypatch):
    monkeypatch.setattr("mdm.data.sources.addresses.prepare", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_shard(indexed(tmp_path, server.base, NAMES), 0)


def fetching(path):
    command = [sys.executable, "-m", "mdm", "shard", str(path), "--shard", "00000-00002"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_at_random_moments_the_shards_are_the_same_and_nothing_comes_twice(server, tmp_path):
    names = [f"{'missing' if k % 10 == 3 else 'good'}-{k}" for k in range(120)]
    path = indexed(tmp_path, server.base, names, 40, threads=4)
    other = tmp_path / "other" / "data" / path.parent.name
    shutil.copytree(path.parent, other)
    write_shards(other / "recipe.json", 0, 2)
    server.asked.clear()
    server.delay, drawn, kills = 0.02, random.Random(5), 0
    for _ in range(4):
        job, target = fetching(path), server.asked.total() + drawn.randint(5, 30)
        while job.poll() is None and server.asked.total() < target:
            time.sleep(0.002)
        kills += job.poll() is None
        job.send_signal(signal.SIGKILL)
        job.communicate()
        for tar in path.parent.glob("shards/*.tar"):  # whatever has its name already is whole
            assert tar.read_bytes() == (other / "shards" / tar.name).read_bytes()
    job = fetching(path)
    assert job.communicate()[1] == "" and job.returncode == 0
    assert kills >= 3
    for name in sorted(os.listdir(other / "shards")):
        assert (path.parent / "shards" / name).read_bytes() == (other / "shards" / name).read_bytes()
    assert sorted(os.listdir(path.parent / "shards")) == sorted(os.listdir(other / "shards"))
    # Lost with a kill: at most what threads, queue and writer had in their hands.
    assert set(server.asked) == set(names) and server.asked.total() <= len(names) + kills * (4 + 2 * 4 + 1)
    keys = []
    for tar in path.parent.glob("shards/*.tar"):
        with tarfile.open(tar) as opened:
            keys += opened.getnames()
    assert len(set(keys)) == len(keys) == 3 * 108
    assert write_manifest(path)["digest"] == write_manifest(other / "recipe.json")["digest"]


def test_how_it_is_fetched_is_no_part_of_the_digest(tmp_path):
    listed = write_list(tmp_path, "http://localhost", NAMES)
    recipe = sources.resolve("cc12m", listed, "here")
    other = {**listed, "index": "elsewhere.tsv", "retries": 7, "timeout_seconds": 1, "min_success": 0.1, "per_host": 1}
    assert sources.resolve("cc12m", other, "here") == recipe and "index" not in recipe
    assert sources.resolve("cc12m", {**listed, "sha256": "0" * 64}, "here") != recipe
    assert sources.resolve("cc12m", {**listed, "allowed_networks": ["10.0.0.0/8"]}, "here") != recipe
    how = sources.handling("cc12m", other, "here")
    assert (how["index"], how["retries"], how["min_success"]) == ("elsewhere.tsv", 7, 0.1)
    assert sources.handling("scenes", {"num_images": 3, "resolution": 16}, "here") == {}


def test_the_paper_study_groups_its_shards_and_hands_over_how_to_fetch():
    paper = study.load("paper")
    ref = next(ref for ref in paper.of_kind("data") if "cc12m-256" in ref)
    jobs = paper.shard_jobs(ref)
    assert jobs[0] == "00000-00009" and jobs[-1] == "00590-00599" and len(jobs) == 60
    assert paper.artifact(ref).handling["index"] == "data/cc12m.tsv"
    faster = study.load("paper", {"data.cc12m-256.settings.retries": 9, "data.cc12m-256.shards_per_job": 7})
    assert set(faster.artifacts) == set(paper.artifacts) and faster.shard_jobs(ref)[-1] == "00595-00599"


def test_settings_that_img2dataset_ignores_are_refused(tmp_path):
    listed = write_list(tmp_path, "http://localhost", NAMES)
    with pytest.raises(StudyError, match="img2dataset does not obey allowed_networks, per_host"):
        sources.resolve(
            "cc12m", {**listed, "fetcher": "img2dataset", "allowed_networks": ["10.0.0.0/8"], "per_host": 1}, "here"
        )
    with pytest.raises(StudyError, match=r"allowed_networks.*does not appear to be"):
        sources.resolve("cc12m", {**listed, "allowed_networks": ["ten"]}, "here")


def test_settings_of_pictures_are_refused_too(tmp_path):
    listed = write_list(tmp_path, "http://localhost", NAMES)
    with pytest.raises(StudyError, match="img2dataset does not obey resize, stored"):
        sources.resolve("cc12m", {**listed, "fetcher": "img2dataset", "resize": "area", "stored": "png"}, "here")
    with pytest.raises(StudyError, match="max_pixels"):
        sources.resolve("cc12m", {**listed, "max_pixels": 10**9}, "here")


def test_fetched_pictures_are_prepared_like_those_of_a_folder(server, tmp_path):
    names = ["any-turned", "any-clear", "any-cmyk", "any-sixteen", "any-grey", "any-wide", "any-profile"]
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    server.files = {
        "turned": saved(noise, "JPEG", exif=turned, quality=95), "clear": saved(noise.convert("RGBA"), "PNG"),
        "cmyk": saved(noise.convert("CMYK"), "JPEG"), "grey": saved(noise.convert("L"), "WEBP", lossless=True),
        "sixteen": saved(Image.fromarray(rng.integers(0, 65536, (40, 40), dtype=np.uint16)), "PNG"),
        "wide": saved(Image.new("RGB", (400, 40)), "PNG"),
        "profile": saved(noise, "JPEG", icc_profile=other_profile()),
    }  # fmt: skip
    wanted = {"resize": "area", "crop": "none", "stored": "png", "max_aspect": 3.0}
    path = indexed(tmp_path, server.base, names, min_success=0.5, clean_captions=True, **wanted)
    write_shard(path, 0)
    assert write_manifest(path)["failures"] == {"too elongated": 1}
    pictures, settings = Pictures(path.parent), PictureSettings(resolution=32, **wanted)
    for number, name in enumerate(name for name in names if name != "any-wide"):
        whole = pixels(server.files[name.removeprefix("any-")], settings)
        stored = pictures._read(number, "png")
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored))), whole)


def other_profile():
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()


@pytest.mark.parametrize(("rule", "kept"), [("none", "0123456789"), ("files", "01245789"), ("looks", "0124579")])
def test_duplicates_across_shards(server, tmp_path, rule, kept):
    """The first by (shard, row) stays, whoever made its shard first."""
    different = [smooth(64, 64, seed) for seed in range(7)]
    server.files = {str(k): saved(different[k]) for k in range(3)}
    server.files |= {"3": saved(different[1]), "4": saved(different[3]), "5": saved(different[4])}
    server.files |= {"6": saved(different[0]), "7": saved(different[5]), "9": saved(different[6])}
    server.files["8"] = saved(different[2].resize((80, 80)), "JPEG", quality=80)
    digests = []
    for order in ([0, 1, 2], [2, 0, 1]):
        folder = tmp_path / f"first{order[0]}"
        folder.mkdir()
        path = indexed(folder, server.base, [f"any-{k}" for k in range(10)], 4, duplicates=rule)
        for shard in order:
            write_shard(path, shard)
        manifest = write_manifest(path)
        digests.append(manifest["digest"])
    pictures = Pictures(path.parent)
    assert digests[0] == digests[1]
    assert "".join(pictures.caption(number)[-2] for number in range(len(pictures))) == kept
    assert sum(pictures.shard_samples) == manifest["samples"] == len(kept) and manifest["fetched_fraction"] == 1
    expected = {"files": {"files": 2}, "looks": {"files": 2, "looks": 1}}
    assert manifest.get("duplicates") == expected.get(rule)
    ids = Loader(path.parent, None, len(kept), 0, 32).batch(0)
    assert sorted(caption[-2] for caption in ids.captions) == list(kept)


def test_the_list_itself_may_come_from_an_address(tmp_path):
    settings = write_list(tmp_path, "http://localhost", NAMES, header=False)
    settings["index"] = (tmp_path / "list.tsv").as_uri()
    path = make_recipe(tmp_path, "cc12m", columns=["url", "caption"], **settings)
    index_data(path)
    assert [row.columns["url"] for row in read_index(path.parent)][-1] == "http://localhost/small-1"


def test_lists_from_addresses_with_queries_and_odd_contents(tmp_path):
    """What follows a question mark is no part of the file's name; published lists cannot be mended."""
    with serving() as server:
        text = '\ufeffhttp://localhost/a\ta "b\nhttp://localhost/b\tb\tand more\n'
        server.files = {"0.tsv?download=true": text.encode()}
        settings = {"index": f"{server.base}/film-0.tsv?download=true", "resolution": 32, "num_images": 2}
        settings["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        path = make_recipe(tmp_path, "cc12m", columns=["url", "caption"], **settings)
        index_data(path)
        assert [row.caption for row in read_index(path.parent)] == ['a "b', "b"]
    with pytest.raises(ArtifactError, match=r"cannot be fetched .*refused"):
        index_data(path)


def test_parts_share_nothing_and_cover_all(tmp_path):
    names = [f"good-{k}" for k in range(200)]
    listed = write_list(tmp_path, "http://localhost", names)
    source = sources.find("cc12m", "here")
    parts = {}
    for part in ("train", "validation"):
        settings = source.Settings(**listed, part=part, validation_every=10)
        parts[part] = {row.columns["url"] for row in source.index(settings)}
    assert not parts["train"] & parts["validation"] and len(parts["train"] | parts["validation"]) == 200
    assert 8 <= len(parts["validation"]) <= 35


def test_bad_lists_are_refused(tmp_path):
    settings = write_list(tmp_path, "http://localhost", NAMES, header=False)
    with pytest.raises(ArtifactError, match="needs columns url and caption"):
        index_data(make_recipe(tmp_path, "cc12m", **settings))
    with pytest.raises(ArtifactError, match="it is another list"):
        index_data(make_recipe(tmp_path, "cc12m", **{**settings, "sha256": "0" * 64}))
    with pytest.raises(ArtifactError, match="num_images is 99"):
        index_data(make_recipe(tmp_path, "cc12m", columns=["url", "caption"], **{**settings, "num_images": 99}))
    with pytest.raises(StudyError, match="sha256"):
        sources.resolve("cc12m", {**settings, "sha256": "abc"}, "here")
    (tmp_path / "list.tsv").write_text("url\tcaption\nhttp://localhost/1\n")
    settings["sha256"] = sha256_file(tmp_path / "list.tsv")
    with pytest.raises(ArtifactError, match="line 2 has too few columns"):
        index_data(make_recipe(tmp_path, "cc12m", **settings))


def test_recipes_are_plain_json(tmp_path):
    path = make_recipe(tmp_path, "cc12m", **write_list(tmp_path, "http://localhost", NAMES))
    assert read_json(path)["settings"]["version"] == 3
