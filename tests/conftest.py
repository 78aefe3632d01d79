"""Shared places: the repository, the facts beside it if they are there, and one finished quick study."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repository import HANG_SECONDS, ROOT, copy_repository

SHARED = ROOT.parent / "shared"

# One thread each: sums of several threads are added up in another order, and tests compare to the last bit.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Facts and golden numbers beside the repository; tests that need them skip without."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here")
    return SHARED


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id) -> Path:
    """A copy of the repository in which the quick study has run from nothing to the report.

    Of several workers of pytest-xdist one runs it, and each gets a copy: some tests change theirs.
    """
    if worker_id == "master":
        return _run_quick(tmp_path_factory.mktemp("study"))
    shared = tmp_path_factory.getbasetemp().parent / "finished"
    with open(shared.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.is_dir():
            _run_quick(shared.with_name("running")).rename(shared)
    return shutil.copytree(shared, tmp_path_factory.mktemp("copy") / "study", symlinks=True)


def _run_quick(target: Path) -> Path:
    folder = copy_repository(target)
    config = folder / "config" / "config.yaml"
    config.write_text(config.read_text().replace("study: laptop", "study: quick"))
    done = subprocess.run(
        [sys.executable, "-m", "mdm", "run", "--study", "quick"],
        cwd=folder, capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
