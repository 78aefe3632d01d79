"""Plans from a fresh clone: no network, no GPU, nothing made yet."""

import re
import subprocess
import sys

import pytest
from repository import copy_repository, snakemake

from mdm.study import study
from mdm.study.run.launch import snakemake_command


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return copy_repository(tmp_path_factory.mktemp("fresh"))


def test_the_slurm_profile_plans_the_paper_study(fresh):
    done = snakemake(fresh, "--profile", "slurm", "all", "-n")
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert "train_last_slice" in text and "r1024" in text
    assert "slurm_partition=gpu" in text and "gres=gpu:8" in text and "runtime=1440" in text
    assert "mpi=srun, tasks=8, tasks_per_gpu=0" in text
    cc12m = [job for job in text.split("rule ") if re.match("embed_text:(.*\n)*.*/flan-t5-xl-cc12m-256-", job)]
    assert len(cc12m) == 23 and all("gpu=1, device=1, cpus_per_task=8" in job for job in cc12m)
    assert not (fresh / "results" / "train").exists()


def test_nodes_and_gpus_of_the_study_reach_slurm(fresh):
    path = fresh / "config" / "studies" / "large.yaml"
    text = (fresh / "config/studies/quick.yaml").read_text()
    shape = "resources: {nodes: 2, gpus: 8, cpus: 6, minutes: 90, memory_mb: 300000}"
    path.write_text(text.replace("resources: {preview_images: 256}", shape, 1))
    done = snakemake(fresh, "--profile", "slurm", "all", "-n", "--config", "study=large")
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    assert "mem_mb=300000" in text and "runtime=90, nodes=2, gpus_of_node=8, cpus_per_task=6, gres=gpu:8" in text
    assert "mpi=srun, tasks=16, tasks_per_gpu=0" in text


def test_plain_snakemake_plans_the_laptop_study(fresh):
    done = snakemake(fresh, "-n")
    assert done.returncode == 0, done.stderr
    assert "zero-shot-r64" in done.stdout + done.stderr


def test_the_workstation_study_plans_all_three_stages(fresh):
    done = snakemake(fresh, "-n", "--config", "study=workstation")
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert "results/train/r1024" in text and "results/data/drawings-1024" in text
    assert not (fresh / "results" / "train").exists() and not (fresh / "data").exists()
    for line in re.findall(r"^    resources: .*$", text, re.MULTILINE):  # `mdm run` allows one device at a time
        assert ("device=1" in line) == bool(re.search(r"\bgpu(s_of_node)?=1\b", line)), line
    assert {"device=1"} <= {part for line in text.splitlines() if "gpus_of_node=1" in line for part in line.split(", ")}
    assert "device=1" in snakemake_command(study.load("workstation"), ["all"], "all")


def test_a_wrong_study_is_one_message_and_no_traceback_of_ours(fresh):
    path = fresh / "config" / "studies" / "typo.yaml"
    path.write_text((fresh / "config/studies/quick.yaml").read_text().replace("batch_images: 16", "batch_imges: 16"))
    done = subprocess.run(
        [sys.executable, "-m", "mdm", "run", "--study", "typo"], cwd=fresh, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "unknown key 'batch_imges'; did you mean 'batch_images'" in done.stdout + done.stderr
    assert not (fresh / "results" / "data").exists()


def test_missing_weights_stop_the_study_before_the_first_job(fresh):
    path = fresh / "config" / "studies" / "weights.yaml"
    text = (fresh / "config/studies/quick.yaml").read_text()
    path.write_text(text.replace("    clip: clip\n", f"    inception: {{path: no/such.pt, sha256: '{'0' * 64}'}}\n", 1))
    done = subprocess.run(
        [sys.executable, "-m", "mdm", "run", "--study", "weights"],
        cwd=fresh,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "no/such.pt" in done.stdout + done.stderr and "there is no such file" in done.stdout + done.stderr
    assert not (fresh / "results" / "data").exists()


def test_the_schema_is_not_stale(root, tmp_path):
    subprocess.run([sys.executable, "-m", "mdm", "schema", "--out", tmp_path / "s.json"], check=True, cwd=root)
    assert (tmp_path / "s.json").read_text() == (root / "workflow/schemas/study.schema.json").read_text(), (
        "run: python -m mdm schema --out workflow/schemas/study.schema.json"
    )
