"""Who is a copy, against decisions of the released code and exact ones by another implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdm.evaluate.copies import copied, released_distances, released_rule
from mdm.evaluate.neighbours import neighbours

CASES = ("ties_8px", "few_8px", "cifar_8px", "ties_32px")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "golden" / "memratio.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


@pytest.mark.parametrize("gpu", [False, True], ids=["numpy", "torch"])
@pytest.mark.parametrize("case", CASES)
def test_exact_distances_and_decisions(golden: dict[str, np.ndarray], case: str, gpu: bool) -> None:
    found = neighbours(golden[f"{case}/made"], [golden[f"{case}/known"]], 2, gpu)
    assert found.squared.T.tolist() == [golden[f"{case}/squared_nn{k}"].tolist() for k in (1, 2)]
    assert (found.index[:, 0] == golden[f"{case}/exact_index"]).all()
    assert (copied(found.squared) == golden[f"{case}/exact_decision"]).all()


def test_the_ratio_of_real_pictures_is_the_released_one(golden: dict[str, np.ndarray]) -> None:
    made, known = golden["cifar_8px/made"], golden["cifar_8px/known"]
    ratio = float(golden["cifar_8px/reference_ratio"])
    assert copied(neighbours(made, [known], 2).squared).mean() == ratio
    assert released_rule(released_distances(made, known)).mean() == ratio


@pytest.mark.parametrize("case", CASES)
def test_the_released_rule_in_its_own_rounding(golden: dict[str, np.ndarray], case: str) -> None:
    stored = golden[f"{case}/reference_distance"]
    assert (released_rule(stored) == golden[f"{case}/reference_decision"]).all()
    found = released_distances(golden[f"{case}/made"], golden[f"{case}/known"])
    # Squared distances of 32 px are off by a few units, and so are these from those of another matrix product.
    assert np.abs(found.astype(np.float64) ** 2 - stored.astype(np.float64) ** 2).max() * 3072 <= 32
