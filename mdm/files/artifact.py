"""An artifact: the digest that names it, its proved recipe, and the record of how it was made."""

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from mdm.files.atomic import ArtifactError, read_json, write_json

RECORDED_PACKAGES = (
    "torch", "numpy", "transformers", "open_clip_torch", "clean-fid", "webdataset", "snakemake", "pillow", "resvg_py",
)  # fmt: skip


def canonical(value: Any) -> bytes:
    """Encode a JSON value so that its values alone decide the bytes, not key order or layout."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return the twelve hex digits that identify a recipe."""
    return hashlib.sha256(canonical(value)).hexdigest()[:12]


class Typed(Protocol):
    """A kind of recipe that can be parsed from the content of a recipe.json (mdm/config/recipe.py)."""

    @classmethod
    def of(cls, content: Any, path: str | Path) -> Self: ...


Recipe = TypeVar("Recipe", bound=Typed)


def read_recipe(path: str | Path, kind: type[Recipe]) -> Recipe:
    """Read a recipe of a kind; its digest must be the one its folder is named after."""
    return kind.of(proved(path), path)


def proved(path: str | Path) -> dict[str, Any]:
    """Return the content of a recipe.json, once its digest is the one its folder is named after."""
    path = Path(path)
    recipe: dict[str, Any] = read_json(path)
    named = path.parent.name.rpartition("-")[2]
    if digest(recipe) != named:
        raise ArtifactError(
            f"{path} was changed: its digest is {digest(recipe)}, but the folder says {named}. "
            "Recipes are generated; edit the study file instead and delete this folder."
        )
    return recipe


def results_root(recipe_path: str | Path) -> Path:
    """Return the results folder that holds kind/name-digest/recipe.json."""
    return Path(recipe_path).resolve().parents[2]


class Making(Generic[Recipe]):
    """One artifact while it is made: its proved recipe, its folder, and last of all its manifest."""

    def __init__(self, recipe_path: str | Path, kind: type[Recipe]) -> None:
        self._started = time.monotonic()
        self._content = proved(recipe_path)
        self.recipe = kind.of(self._content, recipe_path)
        self.folder, self.root = Path(recipe_path).parent, results_root(recipe_path)

    def finish(self, facts: Mapping[str, Any], device: str = "cpu") -> dict[str, Any]:
        """Write manifest.json, which says that the artifact is complete; `facts` may bring their own seconds."""
        manifest = {
            "artifact": f"{self._content['kind']}/{self.folder.name}", "recipe": self._content, **facts,
            **provenance(device),
        }  # fmt: skip
        manifest.setdefault("seconds", round(time.monotonic() - self._started, 3))
        write_json(self.folder / "manifest.json", manifest)
        return manifest


SOURCE = (":/mdm", ":/config", ":/workflow")


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    done = subprocess.run(["git", "-C", here, *arguments], capture_output=True, encoding="utf-8", check=False)
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def _source() -> dict[str, Any]:
    try:
        # New files count where they can change numbers: a module or a study that no commit holds.
        changed = [_git("status", "--porcelain", "-uno"), _git("status", "--porcelain", "-uall", "--", *SOURCE)]
        return {"commit": _git("rev-parse", "HEAD"), "dirty": any(changed)}
    except FileNotFoundError:  # no git on this machine: say so rather than guess
        return {"commit": None, "dirty": None}


def provenance(device: str = "cpu") -> dict[str, Any]:
    """Return what every manifest records: source, packages, machine. Host names are left out on purpose."""
    packages = {}
    for name in RECORDED_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return {
        "git": _source(),
        "packages": packages,
        "python": platform.python_version(),
        "device": device,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
