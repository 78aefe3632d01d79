"""`snakemake --profile slurm` on real SLURM daemons: a little cluster on loopback, started and stopped here."""

import os
import shutil
import subprocess
import sys

import pytest
from repository import ROOT

from mdm import study
from mdm.model.checkpoints import load_weights, state_hash

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("slurmctld"), reason="slurmctld is not installed: tools/mini_slurm.sh install"),
]
# Status by squeue (no accounting database here), asked for often so that a short test stays short.
QUICKLY = [
    "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1",
    "--seconds-between-status-checks", "1",
]  # fmt: skip


def on_cluster(folder, *arguments):
    """Run Snakemake in a folder while a cluster of two nodes with eight fake GPUs each is up."""
    return subprocess.run(
        [ROOT / "tools" / "mini_slurm.sh", "run", sys.executable, "-m", "snakemake", *arguments],
        cwd=folder, env={**os.environ, "MINI_SLURM_DIR": str(folder / ".slurm")},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


def test_a_stage_trains_on_the_cluster_to_the_same_weights(finished, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(finished, folder, symlinks=True)
    stage = study.load("quick").runs[0].stages[0].artifact
    expected = state_hash(load_weights(finished / "results" / stage / "weights.safetensors"))
    shutil.rmtree(folder / "results" / stage)
    done = on_cluster(
        folder, "--profile", "slurm", *QUICKLY, f"results/{stage}/manifest.json", "--config", "study=quick"
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    assert "has been submitted with SLURM jobid" in done.stdout + done.stderr
    assert state_hash(load_weights(folder / "results" / stage / "weights.safetensors")) == expected
