"""From pictures to scores.json: features of both sides, comparable protocols, numpy alone at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from evaluate_artifacts import network, put, ref, samples, scenes, text
from safetensors.numpy import load_file, save_file

from mdm.config import StudyError
from mdm.config.instruments import ScoreSettings
from mdm.evaluate.extractors import load_extractors
from mdm.evaluate.features import extract_features
from mdm.evaluate.frechet import GaussianStatistics, Reference, frechet_estimate
from mdm.evaluate.generate import generate
from mdm.evaluate.intervals import Estimate
from mdm.evaluate.judge import train_judge
from mdm.evaluate.metric_names import MEASURABLE
from mdm.evaluate.pictures import open_pictures
from mdm.evaluate.protocol import Protocol
from mdm.evaluate.scores import captions, score
from mdm.evaluate.spectrum import energies, relative_detail
from mdm.files.atomic import read_json, write_json

JUDGE = {"resolution": 16, "channels": [8, 16, 16], "num_images": 256, "batch_images": 16}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A judge, drawn pictures, real pictures, the features of both, and of real pictures beyond these."""
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("results")
    data, real = scenes(results, 96), scenes(results, 84, seed=1)
    judge = put(results, "judge", "judge", data=ref(data), test=ref(real), settings=JUDGE)
    train_judge(judge)
    drawn = samples(results, network(results), real, text(results, real), num_images=24)
    generate(drawn)
    made = {"results": results, "judge": judge, "drawn": drawn, "real": real}
    for name, images, first, count in (("features", drawn, 0, 24), ("reference", real, 0, 60), ("floor", real, 60, 24)):
        made[name] = put(
            results, "features", name, images=ref(images), first=first, num_images=count, resolution=16,
            extractors={"judge": ref(judge)}, spectrum=True,
        )  # fmt: skip
        extract_features(made[name], batch_images=7)
    return made


def scored(world: dict[str, Path], floor: bool = True, **settings: int) -> dict[str, dict]:
    recipe = put(
        world["results"], "scores", "x", features=ref(world["features"]), reference=ref(world["reference"]),
        floor=ref(world["floor"]) if floor else None, settings=settings,
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


def test_the_energy_of_a_wave_is_counted_by_its_frequency() -> None:
    across = np.arange(32) / 32
    slow, fast = (np.sin(2 * np.pi * waves * across) for waves in (4, 12))  # half the Nyquist frequency: 8
    for wave, high in ((slow, 0.0), (fast, 1.0), (slow + fast, 0.5)):
        pictures = np.rint(127 + 40 * np.broadcast_to(wave[None, None, :, None], (1, 32, 32, 3))).astype(np.uint8)
        found = energies(pictures)[0]
        assert found[0] / found[1] == pytest.approx(high, abs=0.01)
    grain = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    found = energies(grain).sum(axis=0)
    assert found[0] / found[1] == pytest.approx(
        1 - (17 / 32) ** 2, abs=0.01
    )  # white noise: as many as there are of these frequencies
    assert (energies(np.full((2, 8, 8, 3), 200, np.uint8)) == 0).all()


def test_detail_is_measured_at_every_level_against_real_pictures_of_its_size(world: dict[str, Path]) -> None:
    rows = scored(world)
    drawn, real = (load_file(world[side].parent / "features.safetensors") for side in ("features", "reference"))
    for side in (16, 8):  # the levels that the network has; the real pictures are stored at 16 px
        shares = [(part := group[f"spectrum.{side}"].sum(axis=0))[0] / part[1] for group in (drawn, real)]
        row = rows[f"detail_{side}"]
        assert row["value"] == pytest.approx(shares[0] / shares[1]) and row["n"] == 24
        assert row["low"] < row["value"] < row["high"]
    assert relative_detail(real["spectrum.16"], real["spectrum.16"]).value == 1
    # An untrained network's pictures are noise, which has more detail than scenes of flat shapes.
    assert rows["detail_16"]["low"] > 1.5
    pictures = open_pictures(world["drawn"].parent).all()
    np.testing.assert_allclose(drawn["spectrum.16"], energies(pictures))


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


def test_scores_stand_in_order_with_their_values_without_each_group(world: dict[str, Path]) -> None:
    rows = scored(world, chance_shifts=3)
    factors = ("", "_colour", "_shape", "_binding", "_count", "_relation")
    measured = [f"alignment{factor}{end}" for factor in factors for end in ("", "_real", "_chance")]
    distances = ["fd_judge", "fd_judge_unbiased", "fd_judge_floor", "fd_judge_unbiased_floor", "kid_judge"]
    assert list(rows) == [*distances, *measured, "detail_16", "detail_8"]
    for name, row in rows.items():
        assert list(row)[:5] == ["metric", "value", "low", "high", "n"]
        if name.endswith("_chance"):
            assert "without" not in row, name
        else:  # 24 drawn pictures, and 84 real ones that the judge was tested on
            assert len(row["without"]) == (20 if name.endswith("_real") else 12), name
    assert rows["fd_judge"]["without"] == list(estimate(world, "features").without)
    assert rows["fd_judge_floor"]["without"] == list(estimate(world, "floor").without)


def estimate(world: dict[str, Path], side: str) -> Estimate:
    features, real = (load_file(world[name].with_name("features.safetensors")) for name in (side, "reference"))
    return frechet_estimate(features["judge"], Reference.of_pictures(real["judge"]))


def test_the_floor_is_measured_on_real_pictures_that_are_no_part_of_the_reference(world: dict[str, Path]) -> None:
    floor, reference = (load_file(world[name].with_name("features.safetensors")) for name in ("floor", "reference"))
    assert len(floor["judge"]) == 24
    assert not (floor["judge"][:, None] == reference["judge"][None]).all(axis=2).any()
    rows = scored(world)
    assert rows["fd_judge_floor"]["n"] == rows["fd_judge"]["n"] == 24
    without = scored(world, floor=False)
    assert set(rows) - set(without) == {"fd_judge_floor", "fd_judge_unbiased_floor"}
    assert {name: row for name, row in rows.items() if name in without} == without


def test_scores_tell_the_protocol(world: dict[str, Path]) -> None:
    scored(world)
    path = next((world["results"] / "scores").glob("*/scores.json"))
    told = read_json(path)["protocol"]["description"]
    assert told.startswith(f"24 pictures for the first captions of {ref(world['real'])}, against the first 60 real")
    assert "area-averaged to 16 px (judge: area average to its input)" in told


def test_scores_need_no_torch(world: dict[str, Path]) -> None:
    recipe = put(
        world["results"], "scores", "y", features=ref(world["features"]),
        reference=ref(world["reference"]), settings={"chance_shifts": 2},
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
    with pytest.raises(StudyError, match="resize is clean on one side and tf1 on the other; resize both sides alike"):
        Protocol.between(side, {**side, "resize": "tf1"})
    with pytest.raises(StudyError, match="holds generated pictures"):
        Protocol.between(side, {**side, "prompts": "data/b"})


def test_the_protocol_names_the_rule_by_which_inception_saw_pictures() -> None:
    side = {"artifact": "features/a", "extractors": {"inception": {}, "judge": "judge/a"}, "resolution": 64,
            "prompts": None, "images": "data/a", "num_images": 5}  # fmt: skip
    clean = Protocol.between(side, {**side, "resize": "clean"})  # features that do not say it are clean
    tf1 = Protocol.between({**side, "resize": "tf1"}, {**side, "resize": "tf1"})
    assert "Inception: clean-fid's bicubic resize to 299 px on floats" in clean.describe()
    assert "Inception: TensorFlow 1's bilinear resize to 299 px, without antialiasing" in tf1.describe()
    assert "bicubic" not in tf1.describe() and "judge: area average" in tf1.describe()
    assert (clean.as_json()["resize"], tf1.as_json()["resize"]) == ("clean", "tf1")


def test_features_say_how_they_were_resized(world: dict[str, Path]) -> None:
    assert read_json(world["features"].with_name("manifest.json"))["resize"] == "clean"
    recipe = read_json(world["features"])
    assert not {"first", "resize"} & set(recipe), "what is as it always was leaves the digest as it was"
    assert read_json(world["floor"])["first"] == 60


def test_unknown_and_absent_extractors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no extractor is called 'inceptoin'; did you mean 'inception'"):
        load_extractors({"inceptoin": "x"}, tmp_path, "cpu")
    with pytest.raises(StudyError, match="measures nothing; name a judge"):
        load_extractors({}, tmp_path, "cpu")


def inception_scores(root: Path, drawn: int, width: int, floor: int | None = None, shift: float = 0.5) -> list[dict]:
    """Scores of features in the place of a network's: `drawn` pictures against 40 real ones."""
    sides = {}
    for name, count, moved in (("a", drawn, shift), ("b", 40, 0.0), ("c", floor, 0.0)):
        if count is None:
            continue
        features = np.random.default_rng(count).normal(size=(count, width)) + moved
        recipe = put(root, "features", name, images=f"data/{name}")
        save_file({"inception": features}, recipe.with_name("features.safetensors"))
        save_file(GaussianStatistics.of(features).tensors("inception"), recipe.with_name("statistics.safetensors"))
        write_json(recipe.with_name("manifest.json"), {
            "artifact": ref(recipe), "extractors": {"inception": {}}, "resolution": 64, "prompts": None,
            "images": f"data/{name}", "num_images": count, "judge_on_real": [],
        })  # fmt: skip
        sides[name] = ref(recipe)
    recipe = put(root, "scores", "x", features=sides["a"], reference=sides["b"], floor=sides.get("c"), settings={})
    score(recipe)
    return read_json(recipe.with_name("scores.json"))["metrics"]


def test_inception_features_give_fid(tmp_path: Path) -> None:
    names = [row["metric"] for row in inception_scores(tmp_path, 30, 4, floor=29)]
    assert names == ["fid", "fid_unbiased", "fid_floor", "fid_unbiased_floor", "kid_inception"]
    assert set(names) <= set(MEASURABLE)


def test_a_distance_without_bias_needs_pictures_for_every_direction(tmp_path: Path) -> None:
    """With few pictures the jackknife does not know the bias, and its interval misses the truth."""
    assert [row["metric"] for row in inception_scores(tmp_path, 12, 12)] == ["fid", "kid_inception"]
    names = [row["metric"] for row in inception_scores(tmp_path, 12, 4, floor=29)]
    assert names == ["fid", "fid_floor", "fid_unbiased_floor", "kid_inception"]


def test_the_dimension_counts_the_directions_in_which_features_vary() -> None:
    luck = np.random.default_rng(0).normal(size=(20000, 8))
    assert Reference.of(GaussianStatistics.of(luck)).dimension == pytest.approx(8, rel=0.01)
    assert Reference.of(GaussianStatistics.of(luck * [3, 3, *[0.01] * 6])).dimension == pytest.approx(2, rel=0.01)


def test_the_unbiased_distance_is_that_of_the_jackknife_around_its_own_value(tmp_path: Path) -> None:
    fid, unbiased, kid = inception_scores(tmp_path, 30, 4)
    found = Estimate(fid["value"], np.array(fid["without"]), np.array(fid["without_real"]))
    assert unbiased["value"] == pytest.approx(found.unbiased) and unbiased["value"] < fid["value"]
    for row in (fid, unbiased):
        assert (row["high"] - row["low"]) / 2 == pytest.approx(found.half_width) and row["without"] == fid["without"]
        assert (row["high"] + row["low"]) / 2 == pytest.approx(row["value"]) and row["n"] == 30
    assert len(fid["without"]) == len(kid["without"]) == 15


def test_captions_are_scored_with_their_groups(tmp_path: Path) -> None:
    def side(values: np.ndarray) -> Any:
        return SimpleNamespace(arrays={"clip.score": values.astype(np.float32)}, per_prompt=1)

    luck = np.random.default_rng(0)
    drawn, real = luck.normal(25, 3, 100), luck.normal(30, 3, 40)
    first, second = captions(side(drawn), side(real), None, ScoreSettings())
    assert (first["metric"], first["n"], second["metric"], second["n"]) == ("clip_score", 100, "clip_score_real", 40)
    wanted = [np.delete(drawn, np.arange(group, 100, 20)).mean() for group in range(20)]
    assert first["without"] == pytest.approx(wanted, rel=1e-6)
    assert first["high"] - first["value"] == pytest.approx(1.984 * drawn.std(ddof=1) / 10, rel=1e-3)
    assert list(captions(SimpleNamespace(arrays={}), SimpleNamespace(arrays={}), None, ScoreSettings())) == []


def test_composition_and_what_has_too_few_pictures(world: dict[str, Path]) -> None:
    recipe = put(
        world["results"], "scores", "more", features=ref(world["features"]), reference=ref(world["reference"]),
        settings={}, metrics=["composition", "precision_recall"],
    )  # fmt: skip
    score(recipe)
    found = read_json(recipe.with_name("scores.json"))
    rows = {row["metric"]: row for row in found["metrics"]}
    assert {name for name in rows if not name.startswith("detail")} <= set(MEASURABLE)
    assert {"composition", "composition_real"} <= rows.keys()
    assert rows["composition"]["n"] == 24 and rows["composition_real"]["n"] == 60
    assert [row["metric"] for row in found["left_out"]] == ["precision_judge", "recall_judge"]
    assert {row["metric"]: row for row in found["metrics"]}["fd_judge"] == scored(world)["fd_judge"]
