"""Factors of studies of memorisation: subsets and labels as released, nested sizes, planted copies, mixtures."""

import io
import json

import numpy as np
import pytest
from evaluate_artifacts import put
from PIL import Image
from repository import ROOT

from mdm.config import StudyError
from mdm.config.recipe import DataRecipe
from mdm.data.batches.reader import Pictures
from mdm.data.shards.shard import index_data, write_manifest, write_shards
from mdm.data.sources import cifar10, mixture
from mdm.data.sources import registry as sources
from mdm.data.sources.scenes import source as scenes
from mdm.study import study

GOLDEN = ROOT / "tests" / "numerics" / "golden"
BALANCED = {"balanced": True, "order": "class"}
RANDOM = {"label": "random", "seed": 1024, "drawn_by": "place"}
AS_RELEASED = {
    "size_1000": {"num_images": 1000, **BALANCED},
    "first_1000": {"num_images": 1000},
    "random_10_of_1000": {"num_images": 1000, **BALANCED, **RANDOM, "random_classes": 10},
    "random_100_of_1000": {"num_images": 1000, **BALANCED, **RANDOM, "random_classes": 100},
    "unique_50": {"num_images": 50, **BALANCED, "label": "unique"},
    "diversity_3_of_100": {"num_images": 100, **BALANCED, "classes": ["bird", "airplane", "automobile"]},
    "dogs_200": {"num_images": 200, "classes": ["dog"]},
}


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "memo_data.npz", allow_pickle=False))


@pytest.fixture
def true_labels(monkeypatch):
    """The first 2,121 labels of CIFAR-10, which hold every picture of the golden subsets."""
    labels = np.load(GOLDEN / "cifar10_labels.npz")["labels"].tolist()
    monkeypatch.setattr(cifar10, "_labels", lambda settings: labels)


def made(tmp_path, source, shard_images=64, **settings):
    """A finished data set."""
    recipe = put(tmp_path, "data", "some", source=source, settings=sources.resolve(source, settings, "test"),
                 shard_images=shard_images)  # fmt: skip
    index_data(recipe)
    count = len(sources.shard_names(sources.job(recipe).recipe))
    write_shards(recipe, 0, count - 1)
    manifest = write_manifest(recipe)
    return Pictures(recipe.parent), manifest


@pytest.mark.parametrize("case", AS_RELEASED)
def test_subsets_and_labels_are_those_of_the_released_tools(golden, true_labels, case):
    rows = list(cifar10.index(cifar10.Settings(**AS_RELEASED[case])))
    assert [int(row.columns["number"]) for row in rows] == golden[f"{case}/numbers"].tolist()
    assert [row.labels["class"] for row in rows] == golden[f"{case}/labels"].tolist()


def test_random_labels_need_as_many_classes_as_released(golden):
    for case, told in json.loads(bytes(golden["meta"]))["random_labels"].items():
        classes, count = map(int, case.split(" of "))
        settings = cifar10.Settings(num_images=count, **BALANCED, **RANDOM, random_classes=classes)
        assert cifar10.label_count(settings) == told["label_dim"]


def test_turns_make_every_balanced_subset_the_beginning_of_a_larger_one(true_labels):
    def numbers(count, order):
        settings = cifar10.Settings(num_images=count, balanced=True, order=order)
        return [int(row.columns["number"]) for row in cifar10.index(settings)]

    large = numbers(1000, "turns")
    for count in (10, 500):
        assert large[:count] == numbers(count, "turns")
        assert set(large[:count]) == set(numbers(count, "class")) == set(numbers(count, "number"))


def test_smaller_pictures_are_resized_by_lanczos(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    monkeypatch.setattr(cifar10, "_archive", lambda settings: None)
    monkeypatch.setattr(cifar10, "_pixels", lambda *_: pixels)
    monkeypatch.setattr(cifar10, "_labels", lambda settings: [3, 5])
    for side in (32, 16, 8):
        settings = cifar10.Settings(num_images=2, resolution=side)
        drawn = [picture.data for _, picture in cifar10.pictures(list(cifar10.index(settings)), settings)]
        expected = [Image.fromarray(x).resize((side, side), Image.Resampling.LANCZOS) for x in pixels]
        for data, picture in zip(drawn, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(picture))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"order": "class"}, "write balanced: true"),
        ({"order": "turns", "balanced": True, "num_images": 15}, "or order: class"),
        ({"drawn_by": "place"}, "has no effect with label: class"),
        ({"copies": {"count": 1, "of": 3}}, "greater than or equal to 2"),
        ({"copies": {"count": 2, "of": 30}}, "copies.of 30 is more than the 20 pictures; write 20 or less"),
    ],
)  # fmt: skip
def test_impossible_subsets_are_refused(given, message):
    with pytest.raises(StudyError, match=message):
        sources.resolve("cifar10", {"num_images": 20, **given}, "study")


def test_new_factors_leave_settings_of_old_recipes_as_they_were():
    old = sources.resolve("scenes", {"num_images": 4, "resolution": 8}, "study")
    assert not {"label", "copies", "duplicates", "random_classes", "label_seed"} & old.keys()
    assert not {"copies", "order", "drawn_by", "duplicates"} & sources.resolve("cifar10", {"num_images": 4}, "s").keys()


@pytest.mark.parametrize("label", [{"label": "none"}, {"label": "class"}, {"label": "unique"},
                                   {"label": "random", "random_classes": 5, "label_seed": 1024}])  # fmt: skip
def test_scenes_of_other_sizes_are_nested_with_their_labels(label):
    def rows(count):
        return list(scenes.index(scenes.Settings(num_images=count, resolution=8, **label)))

    large = rows(128)
    assert rows(64) == large[:64]
    counted = scenes.label_count(scenes.Settings(num_images=128, resolution=8, **label))
    if label["label"] == "none":
        assert counted == 0 and not any("class" in row.labels for row in large)
    else:
        assert {row.labels["class"] for row in large} <= set(range(counted))
        assert (counted == 128) == (label["label"] == "unique")


def test_the_true_class_of_a_scene_is_the_colour_and_shape_of_its_first_group():
    settings = scenes.Settings(num_images=200, resolution=8, label="class", relations=[])
    by_class = {}
    for row in scenes.index(settings):
        assert by_class.setdefault(row.labels["class"], row.labels["pairs"]) == row.labels["pairs"]
    assert len({json.dumps(pairs) for pairs in by_class.values()}) == len(by_class) > 40
    few = scenes.Settings(num_images=9, resolution=8, label="class", colours=["red", "blue"], shapes=["star", "heart"])
    assert scenes.label_count(few) <= 4


@pytest.mark.parametrize(("label", "message"), [
    ({"label": "random"}, "needs random_classes and label_seed"),
    ({"label": "class", "label_seed": 3}, "have no effect with label: class"),
    ({"label": "classes"}, "none"),
])  # fmt: skip
def test_impossible_labels_are_refused(label, message):
    with pytest.raises(StudyError, match=message):
        sources.resolve("scenes", {"num_images": 4, "resolution": 8, **label}, "study")


def test_planted_copies_follow_all_pictures_and_say_how_many_they_are(tmp_path):
    plain, _ = made(tmp_path / "plain", "scenes", num_images=20, resolution=8, label="unique")
    pictures, manifest = made(tmp_path / "copies", "scenes", num_images=20, resolution=8, label="unique",
                              copies={"count": 30, "of": 3})  # fmt: skip
    assert len(pictures) == manifest["samples"] == manifest["fetched"] == 20 + 29 * 3
    for number in range(len(pictures)):
        shown = number if number < 20 else (number - 20) % 3
        np.testing.assert_array_equal(pictures.image(number), plain.image(shown))
        assert pictures.caption(number) == plain.caption(shown)
        assert pictures.labels(number) == {**plain.labels(shown), "copies": 30 if shown < 3 else 1}


def test_leaving_out_duplicates_undoes_planting(tmp_path):
    pictures, manifest = made(tmp_path, "scenes", num_images=20, resolution=8, copies={"count": 4, "of": 5},
                              duplicates="files")  # fmt: skip
    assert len(pictures) == 20 and manifest["duplicates"] == {"files": 15}
    assert [pictures.key(number) for number in range(20)] == [f"{number:08d}" for number in range(20)]


def test_copies_of_cifar10_are_its_first_pictures_again(true_labels):
    rows = list(cifar10.index(cifar10.Settings(num_images=10, **BALANCED, copies={"count": 3, "of": 2})))
    assert [row.columns["number"] for row in rows[10:]] == [row.columns["number"] for row in rows[:2]] * 2
    assert [row.key for row in rows] == sorted({row.key for row in rows})
    assert [row.labels["copies"] for row in rows] == [3, 3] + [1] * 8 + [3] * 4


@pytest.mark.parametrize(
    ("share", "first"), [(0, 1000), (0.2, 800), (0.5, 500), (0.8, 199), (1, 0)]
)  # fmt: skip
def test_parts_of_a_mixture_are_rounded_as_in_the_released_tool(share, first):
    assert mixture.counts(1000, share) == (first, 1000 - first)


def test_a_mixture_has_the_first_pictures_of_one_set_and_then_of_another(tmp_path):
    of_each = [{"seed": 1, "shapes": ["circle"]}, {"seed": 2, "fills": ["solid"]}]
    parts = [{"source": "scenes", "settings": settings} for settings in of_each]
    pictures, manifest = made(tmp_path / "both", "mixture", num_images=12, share=0.25, resolution=8, parts=parts,
                              copies={"count": 2, "of": 1}, label="unique")  # fmt: skip
    assert manifest["samples"] == 13 and manifest["licences"] == {scenes.LICENCE: 13}
    first, second = (made(tmp_path / str(k), "scenes", num_images=9, resolution=8, **of_each[k])[0] for k in (0, 1))
    for number in range(13):
        expected = first.image(number % 12) if number % 12 < 9 else second.image(number - 9)
        np.testing.assert_array_equal(pictures.image(number), expected)
        assert pictures.labels(number)["class"] == number % 12


def test_classes_are_one_recipe_in_whatever_order_they_are_listed():
    listed = (["cat", "dog"], ["dog", "cat"])
    one, two = (sources.resolve("cifar10", {"num_images": 4, "classes": classes}, "study") for classes in listed)
    assert one == two


def test_paths_of_a_mixture_are_no_part_of_its_recipe(tmp_path):
    def settings(path):
        parts = [{"source": "cifar10", "settings": {"classes": ["dog"], "packages": path}},
                 {"source": "ffhq", "settings": {"path": path}}]  # fmt: skip
        return {"num_images": 10, "share": 0.5, "resolution": 8, "parts": parts}

    one, two = (sources.resolve("mixture", settings(path), "study") for path in ("here", "there"))
    assert one == two and "here" not in json.dumps(one)
    how = sources.handling("mixture", settings("here"), "study")
    recipe = DataRecipe(source="mixture", settings=one, shard_images=64)
    source, opened = sources.reopen(recipe, "recipe", how)
    assert source is mixture and opened.handled[1]["path"] == "here" == opened.handled[0]["packages"]
    one["parts"][0]["settings"]["version"] = 99
    with pytest.raises(StudyError, match="written for version 99 of 'cifar10'"):
        sources.reopen(DataRecipe(source="mixture", settings=one, shard_images=64), "recipe", how)


@pytest.mark.parametrize(("change", "message"), [
    ({"parts": []}, "parts"), ({"share": 2}, "less than or equal to 1"), ({"share": None}, "number"),
    ({"parts": [{"source": "mixture"}, {"source": "scenes"}]}, "source of pictures of its own"),
    ({"parts": [{"source": "scene"}, {"source": "scenes"}]}, "did you mean 'scenes'"),
    ({"label": "class"}, "different meanings"),
    ({"parts": [{"source": "scenes", "settings": {"duplicates": "looks"}}] * 2}, "duplicates of a part has no effect"),
    ({"parts": [{"source": "scenes", "settings": {"copies": {"count": 2, "of": 1}}}] * 2}, "copies of a part has no"),
])  # fmt: skip
def test_impossible_mixtures_are_refused(change, message):
    settings = {"num_images": 10, "share": 0.5, "resolution": 8, "parts": [{"source": "scenes"}] * 2}
    with pytest.raises(StudyError, match=message):
        sources.resolve("mixture", settings | change, "study")


CLASSES = {"base.text": None, "base.model.text_layers": 0, "ablations": {}, "claims": {}, "protocols": {},
           "along": None, "excess": None, "base.validation": None, "base.train.validate_images": 0,
           "base.stages.r32.snapshots": [], "base.model.classes": 8}  # fmt: skip


def test_a_study_says_at_once_how_many_classes_it_needs():
    labels = {"label": "random", "random_classes": 10, "label_seed": 1024}
    given = CLASSES | {f"data.scenes-train.settings.{key}": value for key, value in labels.items()}
    with pytest.raises(StudyError, match=r"labels of data.scenes-train go from 0 to 9; write model\.classes: 10"):
        study.load("quick", given)
    with pytest.raises(StudyError, match="has no label `class`; write label: class, random or unique"):
        study.load("quick", CLASSES)
    study.load("quick", given | {"base.model.classes": 10})
