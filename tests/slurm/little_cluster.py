"""A little cluster of real SLURM daemons on loopback, and what happens to the jobs of a training there."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from repository import HANG_SECONDS, ROOT

from mdm.files.weights import load_weights
from mdm.train.attempts import Attempts

NODES = 11


def until(what, condition, going_on):
    """The first true value of a condition, awaited while something goes on."""
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline and going_on():
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


class Cluster:
    """Commands of a cluster that lives in a folder; people and jobs work in another."""

    def __init__(self, folder, work, environment):
        self._work = work
        self._environment = {
            **environment, "MINI_SLURM_DIR": str(folder), "MINI_SLURM_NODES": str(NODES), "MINI_SLURM_GPUS": "2",
            "MINI_SLURM_PORT": str(10000 + os.getpid() % 400 * 20), "MINI_SLURM_SILENT": "4",
        }  # fmt: skip
        programs = [folder / "bin", Path(sys.executable).parent, os.environ["PATH"]]
        self.environment = {**self._environment, "PATH": ":".join(map(str, programs))}

    def tool(self, *arguments):
        done = subprocess.run(
            [ROOT / "tools" / "mini_slurm.sh", *arguments],
            env=self._environment, capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *command):
        done = subprocess.run(
            command, cwd=self._work, env=self.environment,
            capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@dataclass
class Stage:
    """One stage's folder while jobs work in it."""

    folder: Path
    process: subprocess.Popen | None = None  # the Snakemake that has it made

    def going_on(self):
        return self.process.poll() is None

    def attempts(self):
        return Attempts(self.folder / "progress").lines()

    def begun(self, times):
        """Wait until training has begun so many times, and hold it there; job, node and process."""

        def last():
            begins = [line for line in self.attempts() if "begin" in line]
            return begins[times - 1] if len(begins) >= times else None

        line = until(f"start {times} of {self.folder.name}", last, self.going_on)
        os.kill(line["pid"], signal.SIGSTOP)
        return str(line["job"]), line["node"], line["pid"]


def warned_killed(cluster, stage):
    """SLURM looks at time limits twice a minute; it warns when five minutes are left, as slurm/profile.yaml asks."""
    job, _, trainer = stage.begun(1)
    cluster.run("scontrol", "update", f"jobid={job}", "timelimit=5")
    until("a warning", lambda: len(stage.attempts()) > 1 or signal.SIGTERM in pending(trainer), stage.going_on)
    cluster.run("scontrol", "update", f"jobid={job}", "timelimit=60")  # or it would be warned before it begins again
    with suppress(ProcessLookupError):
        os.kill(trainer, signal.SIGCONT)
    os.kill(stage.begun(2)[2], signal.SIGKILL)


def preempted_cancelled(cluster, stage):
    node = stage.begun(1)[1]
    cluster.run("sbatch", "-p", "urgent", "-w", node, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
    cluster.run("scancel", stage.begun(2)[0])


def crashed_requeued(cluster, stage):
    cluster.tool("crash", stage.begun(1)[1])
    cluster.run("scontrol", "requeue", stage.begun(2)[0])


def over_its_limit(cluster, stage):
    """The limit comes before a warning can: SLURM ends the job, and wakes and asks all its processes first."""
    cluster.run("scontrol", "update", f"jobid={stage.begun(1)[0]}", "endtime=now+1")


def pending(process):
    """Signals sent to a process and not yet delivered; none if it has ended."""
    status = Path(f"/proc/{process}/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("ShdPnd:"):
            bits = int(line.split()[1], 16)
            return {number for number in range(1, 65) if bits >> (number - 1) & 1}
    return set()


def by_torchrun(cluster, stage):
    """The script of slurm/README.md, in the partition and with the resources that a person would name."""
    asked = ["--partition=gpu", "--nodes=2", "--gres=gpu:1", "--cpus-per-task=1", "--mem=40000", "--time=60"]
    cluster.run("sbatch", "--wait", *asked, "slurm/torchrun.sh", str(stage.folder))


EVENTS = {
    "warned": warned_killed,
    "displaced": preempted_cancelled,
    "crashed": crashed_requeued,
    "overdue": over_its_limit,
    "torchrun": by_torchrun,
}


def live_through(process, cluster, stages):
    """Let everything happen at once; Snakemake's exit status."""
    with ThreadPoolExecutor(len(EVENTS)) as events:
        happening = []
        for name, happen in EVENTS.items():
            stages[name].process = process
            happening.append(events.submit(happen, cluster, stages[name]))
        try:
            for event in happening:
                event.result()
            return process.wait(timeout=HANG_SECONDS)
        finally:
            process.kill()  # whoever still waits for something to happen then stops waiting


def trained(stage):
    """All that a finished stage's checkpoint holds, but for the seconds it took."""
    tensors = load_weights(stage / "final.ckpt")
    return {name: tensor for name, tensor in tensors.items() if name != "progress.seconds"}
