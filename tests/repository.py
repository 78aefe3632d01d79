"""Copies of the repository for tests that run its commands."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HANG_SECONDS = 3600  # what takes so long hangs: no machine is so slow, and no test may fail because one is


def copy_repository(target: Path) -> Path:
    """The files git knows, in another folder: a clone with the changes not yet committed."""
    listed = subprocess.check_output(
        ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"], text=True
    )
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def snakemake(folder: Path, *arguments: str, timeout: float = HANG_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a copy of the repository."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
