"""One Snakemake sends a training stage to the little cluster many times, while something happens to each job."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from little_cluster import Cluster, Stage, live_through
from repository import HANG_SECONDS, ROOT, copy_repository

from mdm.study import study

STUDY = "tests/slurm/cluster.yaml"
# Status by squeue (no accounting database here), and only one more try, so that a short test stays short.
SNAKEMAKE = [sys.executable, str(Path(__file__).with_name("impatient_snakemake.py"))]
QUICKLY = [
    "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "20",
    "--retries", "1",
]  # fmt: skip
BUG = """

def training_step(state, config, diffusion, gammas, example, ranks, *rest, step=training_step):
    if config.validate_images == 100005 and ranks.rank == 1:
        raise RuntimeError("a real bug")
    return step(state, config, diffusion, gammas, example, ranks, *rest)
"""


@dataclass
class Story:
    """What happened: stages by the name of their run, what Snakemake said, and how it ended."""

    folder: Path
    stages: dict[str, Stage]
    output: str
    returncode: int


@pytest.fixture(scope="session")
def story(tmp_path_factory):
    """One Snakemake that sends every run to the cluster at once, while something happens to each of their jobs."""
    if not shutil.which("slurmctld"):
        pytest.skip("slurmctld is not installed: tools/mini_slurm.sh install")
    folder = copy_repository(tmp_path_factory.mktemp("cluster"))
    with (folder / "mdm" / "train" / "step.py").open("a") as step:
        step.write(BUG)
    runs = {run.name: run.stages[0].artifact for run in study.load(str(ROOT / STUDY)).runs if run.name != "base"}
    stages = {name: Stage(folder / "results" / artifact) for name, artifact in runs.items()}
    asked, environment = ["--config", f"study={STUDY}"], with_bytecode(folder / ".bytecode")
    recipes = [f"results/{artifact}/recipe.json" for artifact in runs.values()]
    prepare = [sys.executable, "-m", "snakemake", "data", *recipes, "--cores", "2", "--quiet", "all"]
    subprocess.run([*prepare, *asked], cwd=folder, env=environment, check=True, timeout=HANG_SECONDS)
    cluster = Cluster(folder / ".slurm", folder, environment)
    cluster.tool("start")
    try:
        with open(folder / "out.log", "w") as out:
            targets = [f"results/{artifact}/final.ckpt" for name, artifact in runs.items() if name != "torchrun"]
            command = [
                *SNAKEMAKE,
                *targets,
                "--profile",
                "slurm",
                "--keep-going",
                *QUICKLY,
                "--config",
                f"study={STUDY}",
            ]
            process = subprocess.Popen(command, cwd=folder, env=cluster.environment, stdout=out, stderr=out)
            returncode = live_through(process, cluster, stages)
    finally:
        cluster.tool("stop")
    return Story(folder, stages, (folder / "out.log").read_text(), returncode)


def with_bytecode(folder):
    """An environment where Python keeps what it compiles: dozens of processes start here, and none should repeat it."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


@pytest.fixture(scope="session")
def alone(story, tmp_path_factory):
    """The same training by one process that is left alone: the folder of a run's stage."""
    results = tmp_path_factory.mktemp("alone") / "results"
    shutil.copytree(story.folder / "results", results, ignore=shutil.ignore_patterns("progress", "*.ckpt"))

    @cache
    def train(name):
        stage = results / "train" / story.stages[name].folder.name
        words = ["train", stage / "recipe.json", "--out", stage / "final.ckpt"]
        command = [sys.executable, "-m", "mdm", "--threads", "1", *words]
        subprocess.run(
            command, cwd=ROOT, env=with_bytecode(story.folder / ".bytecode"), check=True, timeout=HANG_SECONDS
        )
        return stage

    return train
