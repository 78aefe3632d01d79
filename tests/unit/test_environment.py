"""One lock for pip, uv and conda, and nothing in it that belongs to one machine."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement


@pytest.fixture(scope="module")
def locked(root):
    lines = (root / "requirements.lock").read_text().splitlines()
    pins = (re.match(r"([A-Za-z0-9_.-]+)==([^\s;]+)", line) for line in lines if not line.startswith("#"))
    return {found[1].lower().replace("_", "-"): found[2] for found in pins if found}


def test_the_lock_satisfies_every_requirement(root, locked):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(text)
        name = wanted.name.lower().replace("_", "-")
        assert name in locked, f"{name} is not locked: run tools/lock.sh"
        assert wanted.specifier.contains(locked[name]), f"{text}, but {locked[name]} is locked"


def test_the_lock_serves_cpu_and_cuda(root, locked):
    assert "+" not in locked["torch"]
    assert not [name for name in locked if name.startswith("nvidia-")]
    assert "://" not in (root / "requirements.lock").read_text()


def test_conda_users_get_the_same_lock(root):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    assert [e for e in environment["dependencies"] if isinstance(e, str)] == ["python=3.11", "pip>=24"]
