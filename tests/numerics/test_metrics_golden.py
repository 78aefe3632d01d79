"""Fréchet and kernel distances on stored features, against the numbers of the packages that papers used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdm.evaluate import frechet, intervals
from mdm.evaluate.frechet import GaussianStatistics, Reference, frechet_estimate
from mdm.evaluate.kid import kernel_estimate

CASES = ("plain", "singular", "modes", "ties", "offset")
PACKAGES = ("torch_fidelity", "cleanfid", "torchmetrics")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(Path(__file__).parent / "golden" / "metrics.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return arrays | {"values": json.loads(bytes(arrays.pop("meta")))["values"]}


def sides(golden: dict[str, Any], case: str) -> tuple[np.ndarray, np.ndarray]:
    """Drawn and real features."""
    return golden[f"{case}.fake"].astype(np.float64), golden[f"{case}.real"].astype(np.float64)


@pytest.mark.parametrize("case", CASES)
def test_frechet_distance(golden: dict[str, Any], case: str) -> None:
    fake, real = sides(golden, case)
    wanted = golden["values"][case]["fd"]
    ours = Reference.of(GaussianStatistics.of(real)).distance(GaussianStatistics.of(fake))
    assert ours == pytest.approx(wanted["exact"], rel=1e-6 if case == "singular" else 1e-10)
    # At full rank the packages agree; a singular root costs them half their digits.
    for package in PACKAGES if case in ("plain", "modes") else ():
        assert ours == pytest.approx(wanted[package], rel=1e-9), package


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_has_the_same_value(golden: dict[str, Any], case: str) -> None:
    fake, real = sides(golden, case)
    reference = Reference.of(GaussianStatistics.of(real))
    assert frechet_estimate(fake, reference).value == reference.distance(GaussianStatistics.of(fake))


def test_the_jackknife_over_the_same_groups(golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The stored one leaves out neighbours, ours takes every twentieth: on rows in the other order both are one."""
    fake, real = sides(golden, "plain")
    reference, wanted = Reference.of(GaussianStatistics.of(real)), golden["values"]["plain"]["fd_jackknife_20"]
    interleaved = np.empty_like(fake)
    for group, places in zip(intervals.groups_of(len(fake)), np.array_split(np.arange(len(fake)), 20), strict=True):
        interleaved[group] = fake[places]
    found = frechet_estimate(interleaved, reference)
    assert found.unbiased == pytest.approx(wanted["value"], rel=1e-8)
    assert intervals.standard_error(found.without) == pytest.approx(wanted["standard_error"], rel=1e-8)
    monkeypatch.setattr(frechet, "groups_of", lambda count: np.array_split(np.arange(count), 20))
    assert frechet_estimate(fake, reference).unbiased == pytest.approx(wanted["value"], rel=1e-8)


@pytest.mark.parametrize("case", [case for case in CASES if case != "offset"])
def test_kernel_distance(golden: dict[str, Any], case: str) -> None:
    """No number is stored for `offset`, where cubes of a million cancel."""
    fake, real = sides(golden, case)
    wanted = golden["values"][case]
    assert kernel_estimate(fake, real).value == pytest.approx(wanted["kid_unbiased"], rel=1e-9)
    full = wanted["kid_cleanfid_full"]
    first = full["first"]
    assert kernel_estimate(fake[:first], real[:first]).value == pytest.approx(full["value"], rel=1e-9)
