"""What `mdm theory` made of a study's training pictures: numbers and pictures of why the optimum copies."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mdm.files.atomic import ArtifactError
from mdm.report.collect import Artifacts
from mdm.study.study import Study

PICTURES = ("pictures", "noisy", "answers", "linear", "drawn", "mixed")


@dataclass(frozen=True)
class Theory:
    """answers: of one picture in falling noise; copies: of drawn pictures; curve: losses by noise level.

    pictures: uint8 [N,R,R,3] by name: those that are known, what is seen, the best answers and the best linear ones,
    and what either denoiser draws.
    """

    answers: list[dict[str, Any]]
    copies: list[dict[str, Any]]
    curve: dict[str, Any]
    pictures: dict[str, np.ndarray]


def read(study: Study, artifacts: Artifacts) -> Theory | None:
    """Return what was made; None where the study does not ask, or it is not there yet."""
    found = artifacts.json(study.theory, "theory.json")
    path = artifacts.path(study.theory, "theory.npz") if found else None
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as archive:
        if missing := [name for name in PICTURES if name not in archive]:
            raise ArtifactError(f"{path} lacks {', '.join(missing)}; delete its folder and make it again")
        return Theory(**found, pictures={name: archive[name] for name in PICTURES})
