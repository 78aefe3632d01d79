"""From pictures to scores.json: features of both sides, comparable protocols, numpy alone at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_artifacts import network, put, ref, samples, scenes, text
from safetensors.numpy import load_file

from mdm.config import StudyError
from mdm.evaluate.extractors import load_extractors
from mdm.evaluate.features import extract_features
from mdm.evaluate.generate import generate
from mdm.evaluate.judge import train_judge
from mdm.evaluate.protocol import Protocol
from mdm.evaluate.scores import score
from mdm.evaluate.statistics import GaussianStatistics
from mdm.files.atomic import read_json, write_json

JUDGE = {"resolution": 16, "channels": [8, 16, 16], "num_images": 256, "batch_images": 16}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A judge, drawn pictures, real pictures, and the features of both."""
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("results")
    data, real = scenes(results, 96), scenes(results, 80, seed=1)
    judge = put(results, "judge", "judge", data=ref(data), test=ref(real), settings=JUDGE)
    train_judge(judge)
    drawn = samples(results, network(results), real, text(results, real), num_images=24)
    generate(drawn)
    made = {"results": results, "judge": judge, "drawn": drawn, "real": real}
    for name, images, count in (("features", drawn, 24), ("reference", real, 60)):
        made[name] = put(
            results, "features", name, images=ref(images), num_images=count, resolution=16,
            extractors={"judge": ref(judge)},
        )  # fmt: skip
        extract_features(made[name], batch_images=7)
    return made


def scored(world: dict[str, Path], **settings: int) -> dict[str, dict]:
    recipe = put(
        world["results"], "scores", "x", features=ref(world["features"]),
        reference=ref(world["reference"]), settings=settings,
    )  # fmt: skip
    score(recipe)
    return {row["metric"]: row for row in read_json(recipe.with_name("scores.json"))["metrics"]}


def test_statistics_are_those_of_the_stored_features(world: dict[str, Path]) -> None:
    folder = world["reference"].parent
    features = load_file(folder / "features.safetensors")
    statistics = GaussianStatistics.from_tensors(load_file(folder / "statistics.safetensors"), "judge")
    whole = GaussianStatistics.of(features["judge"])
    assert statistics.count == 60
    np.testing.assert_allclose(statistics.mean, whole.mean, rtol=1e-10)
    np.testing.assert_allclose(statistics.moment, whole.moment, rtol=1e-8, atol=1e-10)
    assert features["judge.pairs"].shape == features["labels.pairs"].shape == (60, 64)
    assert (features["labels.count"] >= 0).all()


def test_batches_of_extraction_do_not_matter(world: dict[str, Path]) -> None:
    before = load_file(world["reference"].parent / "features.safetensors")
    extract_features(world["reference"], batch_images=60)
    after = load_file(world["reference"].parent / "features.safetensors")
    np.testing.assert_allclose(after["judge"], before["judge"], atol=1e-5)
    np.testing.assert_array_equal(after["judge.colours"], before["judge.colours"])


def test_every_metric_has_an_interval(world: dict[str, Path]) -> None:
    rows = scored(world)
    for name in ("fd_judge", "fd_judge_floor", "kid_judge", "alignment", "alignment_chance", "alignment_real"):
        assert rows[name]["low"] <= rows[name]["value"] <= rows[name]["high"], name
    assert rows["fd_judge"]["n"] == 24
    assert rows["fd_judge"]["value"] > rows["fd_judge_floor"]["value"]
    on_real = {row["metric"]: row["value"] for row in read_json(world["judge"].with_name("judge.json"))["metrics"]}
    assert rows["alignment_colour_real"]["value"] == on_real["alignment_colour"]
    assert scored(world) == rows


def test_scores_tell_the_protocol(world: dict[str, Path]) -> None:
    scored(world)
    path = next((world["results"] / "scores").glob("*/scores.json"))
    told = read_json(path)["protocol"]["description"]
    assert told.startswith(f"24 pictures for the first captions of {ref(world['real'])}, against the first 60 real")
    assert "area-averaged to 16 px (judge: area average to its input)" in told


def test_scores_need_no_torch(world: dict[str, Path]) -> None:
    recipe = put(
        world["results"], "scores", "y", features=ref(world["features"]),
        reference=ref(world["reference"]), settings={"seed": 1},
    )  # fmt: skip
    code = (
        f"import sys\nfrom mdm.evaluate.scores import score\nscore({str(recipe)!r})\n"
        "sys.exit(str(sorted({'torch', 'open_clip', 'scipy.stats'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert "fd_judge" in done.stdout


def test_sides_that_differ_are_not_compared() -> None:
    side = {"artifact": "features/a", "extractors": {"judge": "judge/a"}, "resolution": 64, "prompts": None,
            "images": "data/a", "num_images": 5}  # fmt: skip
    with pytest.raises(StudyError, match="resolution is 64 on one side and 32 on the other"):
        Protocol.between(side, {**side, "resolution": 32})
    with pytest.raises(StudyError, match=r"extractors is .* use the same judge"):
        Protocol.between(side, {**side, "extractors": {"judge": "judge/b"}})
    with pytest.raises(StudyError, match="holds generated pictures"):
        Protocol.between(side, {**side, "prompts": "data/b"})


def test_unknown_and_absent_extractors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no extractor is called 'inceptoin'; did you mean 'inception'"):
        load_extractors({"inceptoin": "x"}, tmp_path, "cpu")
    with pytest.raises(StudyError, match="measures nothing; name a judge"):
        load_extractors({}, tmp_path, "cpu")


def test_inception_features_give_fid(world: dict[str, Path], tmp_path: Path) -> None:
    # Arrays in the place of a network: the names of the metrics are what is tested.
    from safetensors.numpy import save_file

    sides = {}
    for name, count, shift in (("a", 30, 0.5), ("b", 40, 0.0)):
        features = np.random.default_rng(count).normal(size=(count, 12)) + shift
        recipe = put(tmp_path, "features", name, images=f"data/{name}")
        save_file({"inception": features}, recipe.with_name("features.safetensors"))
        save_file(GaussianStatistics.of(features).tensors("inception"), recipe.with_name("statistics.safetensors"))
        write_json(recipe.with_name("manifest.json"), {
            "artifact": ref(recipe), "extractors": {"inception": {}}, "resolution": 64, "prompts": None,
            "images": f"data/{name}", "num_images": count, "judge_on_real": [],
        })  # fmt: skip
        sides[name] = ref(recipe)
    recipe = put(tmp_path, "scores", "x", features=sides["a"], reference=sides["b"], settings={})
    score(recipe)
    names = [row["metric"] for row in read_json(recipe.with_name("scores.json"))["metrics"]]
    assert names == ["fid", "fid_floor", "kid_inception"]
