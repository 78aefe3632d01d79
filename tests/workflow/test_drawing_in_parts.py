"""A protocol drawn by several jobs of Snakemake: the pictures of one job, and nothing drawn again for another split."""

import json
import re
import shutil

import pytest
from repository import copy_repository, snakemake

from mdm.study import study

pytestmark = pytest.mark.slow

STUDY = """
title: Drawn by many jobs
question: Do several jobs draw what one draws?
data:
  scenes: {source: scenes, settings: {split: all, seed: 1, num_images: 300, resolution: 8, max_objects: 2}}
base:
  data: scenes
  model: {time_channels: 32, levels: {8: {channels: [32], resnets: [1], norm_groups: 8}}}
  train: {batch_images: 16, learning_rate: 1.0e-3, ema_halflife_images: 16}
  stages: {r8: {resolutions: [8], num_images: 16}}
  sample: {sampler: ddim, steps: 2, guidance: 1.0}
protocols:
  drawn: {description: pictures, num_images: 600, resources: {gpus: 1, minutes: 77, IMAGES}}
"""
SPLIT = "images_per_job: 200"  # up to whole batches of 256: three jobs, of which the last has 88 pictures


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repository, and the file that is asked for."""
    folder = copy_repository(tmp_path_factory.mktemp("parts"))
    path = folder / "config" / "studies" / "tiny.yaml"
    path.write_text(STUDY.replace("IMAGES", SPLIT))
    return folder, study.load(str(path)).runs[0].evaluations[0].samples


def write(folder, setting):
    (folder / "config" / "studies" / "tiny.yaml").write_text(STUDY.replace("IMAGES", setting))


def run(folder, samples, *arguments):
    asked = ("--cores", "1", "--config", "study=tiny", *arguments, "--", f"results/{samples}/manifest.json")
    done = snakemake(folder, *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_each_part_is_a_job_with_the_resources_of_the_protocol(clone):
    folder, samples = clone
    text = run(folder, samples, "-n", "--profile", "slurm")
    jobs = [job for job in text.split("rule ") if job.startswith("draw_part:")]
    drawn = {re.search(r"parts/(\d+-\d+)\.npz", job)[1] for job in jobs}
    assert drawn == {"0000000-0000255", "0000256-0000511", "0000512-0000599"} and len(jobs) == 3
    assert all("runtime=77" in job and "gpu=1" in job for job in jobs)
    gathering = [job for job in text.split("rule ") if job.startswith("gather_samples:")]
    assert len(gathering) == 1 and "part_images=256" in gathering[0] and "gpu=" not in gathering[0]
    assert "draw_samples" not in text
    write(folder, "cpus: 1")
    text = run(folder, samples, "-n")
    assert "draw_samples" in text and "draw_part" not in text and "gather_samples" not in text
    write(folder, SPLIT)


def test_parts_are_drawn_and_gathered_and_another_split_draws_nothing(clone):
    folder, samples = clone
    run(folder, samples)
    made = folder / "results" / samples
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["num_images"] == 600 and "drawn_by" not in manifest
    assert not (made / "parts").exists() and not (made / "partial").exists()
    assert "Nothing to be done" in run(folder, samples, "-n")
    for setting in ("cpus: 1", "images_per_job: 512", SPLIT):
        write(folder, setting)
        assert "Nothing to be done" in run(folder, samples, "-n"), setting
    by_parts = (made / "images.npz").read_bytes()
    shutil.rmtree(made)
    write(folder, "cpus: 1")
    run(folder, samples)
    assert (made / "images.npz").read_bytes() == by_parts
    whole = json.loads((made / "manifest.json").read_text())
    assert {**whole, "seconds": 0} == {**manifest, "seconds": 0}
    write(folder, SPLIT)


def test_a_part_that_is_lost_is_the_only_one_drawn_again(clone):
    folder, samples = clone
    made = folder / "results" / samples
    shutil.rmtree(made, ignore_errors=True)
    write(folder, SPLIT)
    asked = [f"results/{samples}/parts/{part}.npz" for part in ("0000000-0000255", "0000512-0000599")]
    done = snakemake(folder, "--cores", "1", "--config", "study=tiny", "--", *asked)
    assert done.returncode == 0, done.stderr
    text = run(folder, samples, "-n")
    assert text.count("rule draw_part:") == 1 and "parts/0000256-0000511.npz" in text
