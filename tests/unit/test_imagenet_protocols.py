"""FID on ImageNet under names, statistics that others published, features of a million pictures, and ADM's cut."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from evaluate_artifacts import put, ref, scenes
from PIL import Image
from PIL.Image import Resampling
from safetensors.numpy import load_file, save_file
from test_preprocess import prepared, saved, smooth

from mdm import study
from mdm.config import StudyConfig, StudyError
from mdm.config.base import parse
from mdm.config.instruments import PublishedConfig
from mdm.data.pictures.preprocess import PictureSettings, _scaled
from mdm.evaluate import features as features_module
from mdm.evaluate import published as published_module
from mdm.evaluate.features import extract_features
from mdm.evaluate.frechet import GaussianStatistics, Reference
from mdm.evaluate.published import published_reference
from mdm.evaluate.scores import score
from mdm.evaluate.unprompted import _balanced
from mdm.files.atomic import read_json, write_json
from mdm.study.imagenet_protocols import IMAGENET
from mdm.study.outside_files import external_files
from mdm.study.standard_protocols import expand

SIZES = ((16, 16), (17, 23), (31, 33), (33, 70), (64, 97), (101, 67), (250, 40), (12, 9))


@pytest.mark.parametrize("size", SIZES)
def test_adm_halves_then_scales_then_cuts_at_whole_pixels(size: tuple[int, int]) -> None:
    """The rule once more in its own words: sizes on the way, and the cut."""
    side, picture = 16, smooth(*size)
    found = PictureSettings(resolution=side, resize="adm")
    halved = picture
    while min(halved.size) // side >= 2:
        halved = halved.resize((halved.size[0] // 2, halved.size[1] // 2), Resampling.BOX)
    width, height = (round(value * (side / min(halved.size))) for value in halved.size)
    rows = np.asarray(halved.resize((width, height), Resampling.BICUBIC))
    top, left = (height - side) // 2, (width - side) // 2
    ours = np.asarray(_scaled(picture, found))
    assert ours.shape == (side, side, 3)
    np.testing.assert_array_equal(ours, rows[top : top + side, left : left + side])
    if min(size) >= side:
        np.testing.assert_array_equal(prepared(saved(picture), side, resize="adm"), ours)


def test_adm_differs_from_one_scaling_of_a_cut_box() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8))
    ours, once = (prepared(saved(picture), 32, resize=rule).astype(int) for rule in ("adm", "bicubic"))
    assert np.abs(ours - once).mean() > 3
    with pytest.raises(ValueError, match="resize: adm cuts the square in the middle, and crop is none"):
        PictureSettings(resolution=32, resize="adm", crop="none")
    for more in ({"decode": "dct"}, {"stored": "jpg"}):  # no longer the pixels that published statistics are of
        with pytest.raises(ValueError, match="resize: adm is a rule of every pixel"):
            PictureSettings(resolution=32, resize="adm", **more)


def entry_of(name: str, **more: Any) -> Any:
    raw = {
        "title": "t", "question": "q", "data": {"d": {"source": "scenes"}},
        "base": {"data": "d", "model": {"time_channels": 32, "levels": {8: {"channels": [32], "resnets": [1]}}},
                 "train": {"batch_images": 4, "learning_rate": 1e-3, "ema_halflife_images": 8},
                 "stages": {"s": {"resolutions": [8], "num_images": 8}}},
        "protocols": {"p": {"standard": name, "files": {"path": "a.tar"}, **more}},
    }  # fmt: skip
    return expand(parse(StudyConfig, raw, "x"), "x.yaml")


@pytest.mark.parametrize("name", IMAGENET)
def test_a_standard_of_imagenet_is_what_its_name_says(name: str) -> None:
    config = entry_of(name)
    protocol = config.protocols["p"]
    real = config.data[protocol.reference].settings
    part = "val" if name.endswith("-val") else "train"
    assert real["split"] == part and real["resize"] == "adm" and real["resolution"] == 256
    assert protocol.num_images == 50_000 and protocol.resize == "tf1" and protocol.keep_rows == 50_000
    assert protocol.num_reference == real["num_images"] == {"val": 50_000, "train": 1_281_167}[part]
    assert protocol.labels == ("all" if name.endswith("-random") else "balanced")
    assert protocol.prompts is None and protocol.description == IMAGENET[name].description


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"keep_rows": 7}, "keep_rows 7: standard imagenet-256-50k says 50000"),
        ({"inception": {"path": "i.pt", "sha256": None}, "resize": "clean"}, "resize clean: standard .* says tf1"),
        ({"files": {"path": "a.tar", "resize": "area"}}, "files.resize: standard imagenet-256-50k has no such file"),
        ({"files": {"path": "a.tar", "num_images": "9"}}, "files.num_images"),
        ({"clip": {"path": "c.pt", "sha256": None}}, "clip: standard imagenet-256-50k has classes and no captions"),
    ],
)
def test_nothing_beside_a_standard_changes_what_its_name_says(more: dict[str, Any], why: str) -> None:
    """Each of these was taken and had no effect, or had one under the standard's name."""
    with pytest.raises(StudyError, match=why):
        entry_of("imagenet-256-50k", **more)


def test_folders_of_imagenet_are_files_of_a_standard() -> None:
    config = entry_of("imagenet-256-50k", files={"path": "there", "layout": "folders"}, resize="tf1",
                      inception={"path": "i.pt", "sha256": None})  # fmt: skip
    assert config.data["imagenet-train-adm-256"].settings["layout"] == "folders"


def whole(tmp_path: Path, classes: int | None) -> study.study.Study:
    """A study of classes at 256 px whose one protocol is a standard."""
    level = {"channels": [32], "resnets": [1], "norm_groups": 8}
    text = {
        "title": "t", "question": "q",
        "data": {"d": {"source": "imagenet", "settings": {"path": "a.tar", "num_images": 64, "resolution": 256}}},
        "base": {"data": "d", "model": {"time_channels": 32, "levels": {256: level}, "classes": classes},
                 "train": {"batch_images": 4, "learning_rate": 1e-3, "ema_halflife_images": 8},
                 "stages": {"s": {"resolutions": [256], "num_images": 8}}},
        "protocols": {"p": {"standard": "imagenet-256-50k", "files": {"path": "a.tar"},
                            "inception": {"path": "i.pt", "sha256": "0" * 64}}},
    }  # fmt: skip
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    return study.load(str(tmp_path / "classes.yaml"))


def test_a_study_of_classes_draws_and_compares_by_the_standard(tmp_path: Path) -> None:
    loaded = whole(tmp_path, 1000)
    evaluation = loaded.runs[0].evaluations[0]
    samples, real = loaded.recipe(evaluation.samples), loaded.recipe(evaluation.reference)
    assert samples.labels == "balanced" and samples.prompts is None and samples.num_images == 50_000
    assert real.keep_rows == 50_000 and real.num_images == 1_281_167 and real.resize == "tf1"
    assert loaded.recipe(evaluation.features).keep_rows is None
    assert loaded.recipe(real.images).settings["resize"] == "adm"
    with pytest.raises(StudyError, match="labels: balanced has no effect"):
        whole(tmp_path, None)


def test_standards_of_imagenet_need_their_tar() -> None:
    with pytest.raises(StudyError, match="needs path: ImageNet's tar of the train split"):
        entry_of("imagenet-256-50k", files={})
    with pytest.raises(StudyError, match="did you mean 'imagenet-256-50k'"):
        entry_of("imagenet-256-5k")


def test_balanced_classes_are_mixed_and_equally_many() -> None:
    recipe = SimpleNamespace(seed=3, num_images=120)
    found = _balanced(recipe, 12)
    assert set(Counter(found).values()) == {10}
    assert len(set(found[:24])) > 8 and found != sorted(found)
    assert _balanced(SimpleNamespace(seed=4, num_images=120), 12) != found


WIDTH = 5


@pytest.fixture
def statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PublishedConfig, np.ndarray]:
    """Published statistics of 300 pictures with few features, and these features."""
    monkeypatch.setattr(published_module, "WIDTH", WIDTH)
    features = np.random.default_rng(0).normal(size=(300, WIDTH)) + 4
    path = tmp_path / "reference.npz"
    np.savez(path, mu=features.mean(axis=0), sigma=np.cov(features, rowvar=False), more=np.zeros(3))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return PublishedConfig(path=str(path), sha256=sha256, num_images=300, preparation="ADM's cut"), features


def test_published_statistics_give_the_distance_of_their_features(
    statistics: tuple[PublishedConfig, np.ndarray],
) -> None:
    published, features = statistics
    drawn = GaussianStatistics.of(np.random.default_rng(1).normal(size=(100, WIDTH)))
    wanted = Reference.of(GaussianStatistics.of(features)).distance(drawn)
    found = published_reference(published)
    assert found.distance(drawn) == pytest.approx(wanted, rel=1e-10) and found.count == 300 and not found.without


def test_published_files_that_are_not_what_they_should_be(
    statistics: tuple[PublishedConfig, np.ndarray], tmp_path: Path
) -> None:
    published, _ = statistics

    def named(path: Path) -> PublishedConfig:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return published.model_copy(update={"path": str(path), "sha256": sha256})

    with pytest.raises(StudyError, match="not the file that the study names"):
        published_reference(published.model_copy(update={"sha256": "0" * 64}))
    np.savez(tmp_path / "a.npz", mu=np.zeros(WIDTH))
    with pytest.raises(StudyError, match="has no array sigma; it holds"):
        published_reference(named(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(StudyError, match=r"has mu \[3\] and sigma \[3, 3\]"):
        published_reference(named(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", mu=np.array([{}]), sigma=np.eye(WIDTH))
    with pytest.raises(StudyError, match="pickles are not opened"):
        published_reference(named(tmp_path / "c.npz"))
    (tmp_path / "d.npz").write_bytes(b"nothing")
    with pytest.raises(StudyError, match=r"no \.npz of plain numbers"):
        published_reference(named(tmp_path / "d.npz"))


def test_scores_stand_against_published_statistics_and_say_so(
    statistics: tuple[PublishedConfig, np.ndarray], tmp_path: Path
) -> None:
    published, features = statistics
    root, sides = tmp_path / "results", {}
    for name, rows in (("a", features[:60] + 1), ("b", features[60:])):
        recipe = put(root, "features", name, images=f"data/{name}", extractors={})
        save_file({"inception": rows.astype(np.float32)}, recipe.with_name("features.safetensors"))
        save_file(GaussianStatistics.of(rows).tensors("inception"), recipe.with_name("statistics.safetensors"))
        manifest = {"artifact": ref(recipe), "extractors": {"inception": {}}, "resolution": 64, "prompts": None,
                    "images": f"data/{name}", "num_images": len(rows), "judge_on_real": []}  # fmt: skip
        write_json(recipe.with_name("manifest.json"), manifest)
        sides[name] = ref(recipe)
    recipe = put(root, "scores", "x", features=sides["a"], reference=sides["b"], published=published, settings={})
    score(recipe)
    found = read_json(recipe.with_name("scores.json"))
    rows = {row["metric"]: row for row in found["metrics"]}
    assert {"fid", "fid_published", "fid_published_unbiased"} <= rows.keys()
    assert "of 300 pictures (ADM's cut)" in found["protocol"]["description"]
    assert "without_real" not in rows["fid_published"]
    # Of the same reference in full the two are one.
    own = Reference.of(GaussianStatistics.of(features)).distance(
        GaussianStatistics.of((features[:60] + 1).astype("f4"))
    )
    assert rows["fid_published"]["value"] == pytest.approx(own, rel=1e-9)


def test_a_number_says_all_that_it_depends_on(tmp_path: Path) -> None:
    """Neighbours, numbers of pictures and what was kept are part of a protocol; without them nothing is said."""
    root, random, sides = tmp_path / "results", np.random.default_rng(0), {}
    for name, count, kept in (("a", 2000, 2000), ("b", 3000, 2500)):
        rows = random.normal(size=(count, WIDTH))
        recipe = put(root, "features", name, images=f"data/{name}", extractors={})
        save_file({"inception": rows[:kept].astype(np.float32)}, recipe.with_name("features.safetensors"))
        save_file(GaussianStatistics.of(rows).tensors("inception"), recipe.with_name("statistics.safetensors"))
        manifest = {"artifact": ref(recipe), "extractors": {"inception": {}}, "resolution": 64, "prompts": None,
                    "images": f"data/{name}", "num_images": len(rows), "judge_on_real": []}  # fmt: skip
        write_json(recipe.with_name("manifest.json"), manifest)
        sides[name] = ref(recipe)
    settings = {"precision_nearest": 4, "most_real": 2100}
    recipe = put(root, "scores", "x", features=sides["a"], reference=sides["b"], settings=settings,
                 metrics=["precision_recall"])  # fmt: skip
    score(recipe)
    said = read_json(recipe.with_name("scores.json"))["protocol"]["description"]
    assert "; of the real pictures all count for Fréchet distances and the first 2500 for all else" in said
    assert "; precision and recall by the 4 nearest of at most 10000 drawn and 2100 real pictures" in said
    plain = put(root, "scores", "y", features=sides["a"], reference=sides["a"], settings={})
    score(plain)
    assert "besides" not in read_json(plain.with_name("scores.json"))["protocol"]


def test_features_of_the_first_pictures_and_statistics_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = scenes(tmp_path, 30)

    def mean_colours(pictures: np.ndarray, _words: Any) -> dict[str, np.ndarray]:
        return {"judge": pictures.mean(axis=(1, 2)).astype(np.float32)}

    monkeypatch.setattr(features_module, "load_extractors", lambda *_: {"judge": mean_colours})
    found = {}
    for keep in (None, 10):
        recipe = put(tmp_path, "features", f"keep{keep}", images=ref(data), num_images=30, resolution=16,
                     extractors={}, keep_rows=keep)  # fmt: skip
        extract_features(recipe, batch_images=7)
        found[keep] = load_file(recipe.with_name("features.safetensors"))
        whole = GaussianStatistics.from_tensors(load_file(recipe.with_name("statistics.safetensors")), "judge")
        assert whole.count == 30
    np.testing.assert_array_equal(found[10]["judge"], found[None]["judge"][:10])
    assert {len(array) for array in found[10].values()} == {10}


def test_published_statistics_need_inception_and_are_an_outside_file() -> None:
    published = {"path": "vision/VIRTUAL.npz", "sha256": "1" * 64, "num_images": 1_281_167, "preparation": "ADM's"}
    plain = {"description": "d", "prompts": "scenes-new", "reference": "scenes-new", "num_images": 8,
             "num_reference": 16, "published": published}  # fmt: skip
    with pytest.raises(StudyError, match="published: statistics of Inception's features; name inception weights"):
        study.load("quick", {"protocols.more": plain})
    weights = {"path": "i.pt", "sha256": "2" * 64}
    loaded = study.load("quick", {"protocols.more": {**plain, "inception": weights}})
    files = {str(file.path): file.sha256 for file in external_files(loaded)}
    assert files["vision/VIRTUAL.npz"] == "1" * 64
