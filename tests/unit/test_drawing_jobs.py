"""What a study says of a protocol that many jobs draw: its jobs, its plan, its status, and no other digest."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mdm.config import StudyError
from mdm.files.atomic import write_json
from mdm.study import drawing_jobs, stage_files, study
from mdm.study.cost import plan
from mdm.study.run import status
from mdm.study.run.view import Outlook

SPLIT = {"protocols.zero-shot.num_images": 300, "data.scenes-new.settings.num_images": 364}
JOBS = {"protocols.zero-shot.resources.images_per_job": 100}


@pytest.fixture(scope="module")
def split() -> study.Study:
    return study.load("quick", SPLIT | JOBS)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_the_size_of_jobs_changes_no_artifact(split: study.Study) -> None:
    whole = study.load("quick", SPLIT)
    assert list(whole.artifacts) == list(split.artifacts) and whole.digest == split.digest
    assert not any(drawing_jobs.parts(whole, ref) for ref in whole.of_kind("samples"))
    assert drawing_jobs.gathering(whole) == "none"


def test_parts_are_whole_batches_of_the_network_that_draws(split: study.Study) -> None:
    samples = {split.artifact(ref).name: ref for ref in split.of_kind("samples")}
    ref = samples["zero-shot-r32"]  # pictures of 32 px are drawn 128 at a time
    assert drawing_jobs.part_images(split, ref) == 128
    assert drawing_jobs.parts(split, ref) == ["0000000-0000127", "0000128-0000255", "0000256-0000299"]
    assert set(drawing_jobs.in_parts(split)) == set(split.of_kind("samples"))
    assert ref.rpartition("-")[2] in drawing_jobs.gathering(split).split("|")
    large = study.load("quick", SPLIT | {"protocols.zero-shot.resources.images_per_job": 299})
    assert drawing_jobs.parts(large, ref) == [], "299 are three batches, which is all there is"


def test_the_plan_counts_jobs_with_their_starts(split: study.Study, tmp_path: Path) -> None:
    ref = split.runs[0].evaluations[0].samples
    one = plan.Estimate(study.load("quick", SPLIT), tmp_path).line(ref)
    line = plan.Estimate(split, tmp_path).line(ref)
    assert (one.slices, line.slices, line.left_slices, line.status) == (1, 3, 3, "to do")
    assert line.seconds == line.left_seconds == one.seconds + 3 * plan.START_SECONDS
    touch(tmp_path / ref, "parts/0000128-0000255.npz", "partial/0123-128/0000000.npz", "partial/0123-128/0000128.npz")
    line = plan.Estimate(split, tmp_path).line(ref)
    assert (line.slices, line.left_slices, line.status) == (3, 2, "85%")
    assert line.left_seconds == pytest.approx(one.seconds * 44 / 300 + 2 * plan.START_SECONDS)
    write_json(tmp_path / ref / "manifest.json", {"seconds": 12.0})
    line = plan.Estimate(split, tmp_path).line(ref)
    assert (line.slices, line.left_slices, line.left_seconds, line.status) == (3, 0, 0.0, "done")


def test_the_status_shows_parts(split: study.Study, tmp_path: Path) -> None:
    ref = split.runs[0].evaluations[0].samples

    def told() -> status.StageStatus:
        return next(s for s in status.of_study(split, tmp_path) if s.ref == ref)

    assert (told().state, told().images, told().num_images, told().slices) == ("waiting", 0, 300, "0/3")
    touch(tmp_path / ref, "parts/0000000-0000127.npz", "partial/0123-128/0000256.npz")
    assert (told().state, told().images, told().slices, told().runs) == ("drawing", 172, "1/3", "base")
    assert "172/300" in status.table([told()], time.time()) and "1/3" in status.table([told()], time.time())
    for path in (tmp_path / ref).rglob("*.npz"):
        os.utime(path, (0, time.time() - stage_files.SILENT_SECONDS - 1))
    assert (told().state, told().note) == ("stopped", "goes on from its last batches")
    touch(tmp_path / ref, "parts/0000128-0000255.npz", "parts/0000256-0000299.npz")
    assert (told().state, told().slices, told().note) == ("drawing", "3/3", "not put together yet")
    write_json(tmp_path / ref / "manifest.json", {"seconds": 75.0})
    assert (told().state, told().slices, told().note) == ("finished", "3/3", "took 75 s")


def test_the_time_left_counts_drawn_pictures(split: study.Study, tmp_path: Path) -> None:
    ref = split.runs[0].evaluations[0].samples
    outlook = Outlook(split, [ref], tmp_path)
    assert outlook.left(10.0) is None
    touch(tmp_path / ref, "parts/0000000-0000127.npz", "partial/0123-128/0000128.npz")
    assert outlook.left(10.0) == pytest.approx(10 * 44 / 256)


def test_a_results_folder_shows_drawings_in_parts(split: study.Study, tmp_path: Path) -> None:
    stage, ref = split.runs[0].stages[-1].artifact, split.runs[0].evaluations[0].samples
    for each in (stage, ref):
        write_json(tmp_path / each / "recipe.json", split.recipe(each).plain())
    touch(tmp_path / ref, "parts/0000000-0000127.npz")
    found = {s.ref: s for s in status.of_folder(tmp_path, {})}
    assert found.keys() == {stage, ref} and (found[ref].images, found[ref].state) == (128, "drawing")


@pytest.mark.parametrize("wrong", [0, -5, "many"])
def test_sizes_that_mean_nothing_are_refused(wrong: object) -> None:
    with pytest.raises(StudyError, match=r"protocols\.zero-shot\.resources\.images_per_job"):
        study.load("quick", {"protocols.zero-shot.resources.images_per_job": wrong})


def test_other_jobs_have_no_such_setting() -> None:
    with pytest.raises(StudyError, match="unknown key 'images_per_job'"):
        study.load("quick", {"base.stages.r8.resources.images_per_job": 8})
