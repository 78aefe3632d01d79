"""The judge: what its cells say about a picture, and that its training is a pure function of its recipe."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_artifacts import put, ref, scenes

from mdm.config import StudyError
from mdm.config.base import parse
from mdm.config.instruments import JudgeSettings
from mdm.evaluate.augment import augment, warp
from mdm.evaluate.judge import fit_judge, open_labelled, reading_loss, train_judge
from mdm.evaluate.judge_network import Judge, JudgeReader, log_absent, presence, to_input
from mdm.evaluate.labels import encode
from mdm.files.atomic import ArtifactError, read_json
from mdm.files.weights import state_hash
from mdm.model.muon import orthogonalised

SMALL = {"resolution": 16, "channels": [8, 16, 16], "num_images": 128, "batch_images": 16}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge's recipe, trained for eight steps."""
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("results")
    data, test = scenes(results, 96), scenes(results, 64, seed=1)
    recipe = put(results, "judge", "judge", data=ref(data), test=ref(test), settings=SMALL)
    train_judge(recipe)
    return recipe


def test_something_is_present_if_some_cell_shows_it() -> None:
    here = torch.tensor([[[0.5, 0.5, 0.0], [0.1, 0.2, 0.3], [1.0, 0.0, 0.0]]])
    logit = presence(log_absent(here.log()))
    expected = [0.75, 1 - 0.9 * 0.8 * 0.7, 1.0]
    assert logit.sigmoid()[0].tolist() == pytest.approx(expected, abs=1e-4)
    assert torch.isfinite(logit).all()


def test_reading_has_the_form_of_labels_and_can_learn_all_of_it() -> None:
    settings = {"num_images": 8, "resolution": 16}
    labels = encode([{"count": 2, "colours": [1], "shapes": [2], "pairs": [[1, 2]], "relation": 0}] * 4)
    torch.manual_seed(0)
    reading = Judge((8, 16, 16))(torch.rand(4, 3, settings["resolution"], 16))
    answers = reading.answers()
    assert {key: value.shape for key, value in answers.items()} == {k: v.shape for k, v in labels.items()}
    assert all(value.dtype == np.int8 for value in answers.values())
    reading_loss(reading, {key: torch.from_numpy(value).long() for key, value in labels.items()}).backward()


def test_training_learns_and_is_a_function_of_its_seed(trained: Path) -> None:
    results = trained.parents[2]
    pictures = open_labelled(results / read_json(trained)["data"], 16)
    settings = [JudgeSettings(**SMALL, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (fit_judge(pictures, each) for each in settings)
    assert state_hash(first[0].state_dict()) == state_hash(again[0].state_dict())
    assert state_hash(first[0].state_dict()) != state_hash(other[0].state_dict())
    longer = fit_judge(pictures, JudgeSettings(**{**SMALL, "num_images": 1024}))
    assert longer[1] < first[1] - 1


def test_verb_writes_weights_and_measures_itself(trained: Path) -> None:
    rows = {row["metric"]: row for row in read_json(trained.with_name("judge.json"))["metrics"]}
    assert {"alignment_colour", "alignment_colour_chance", "alignment_relation"} <= set(rows)
    assert all(row["low"] <= row["value"] <= row["high"] and row["n"] > 0 for row in rows.values())
    manifest = read_json(trained.with_name("manifest.json"))
    assert math.isfinite(manifest["loss"])
    assert not [path for path in trained.parent.iterdir() if path.name.endswith(".tmp")]


def test_a_picture_is_read_alike_in_every_batch_and_size(trained: Path) -> None:
    reader = JudgeReader(trained.parent)
    pixels = open_labelled(trained.parents[2] / read_json(trained)["data"], 16).all()[:9]
    answers, features = reader(pixels)
    assert features.shape == (9, 16)
    for start in range(0, 9, 2):
        part, some = reader(pixels[start : start + 2])
        np.testing.assert_allclose(some, features[start : start + 2], atol=1e-5)
        np.testing.assert_array_equal(part["pairs"], answers["pairs"][start : start + 2])
    large = pixels.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(reader(large)[1], features, atol=1e-5)
    assert to_input(pixels[:, ::2, ::2], 16).shape == (9, 3, 16, 16)


def test_augmentation_is_seeded_and_stays_in_range() -> None:
    pictures = torch.rand(6, 3, 16, 16) * 2 - 1
    first, again = (augment(pictures, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.abs().max() <= 1
    assert 0.005 < (first - pictures).abs().mean() < 0.3


def test_warping_moves_what_is_drawn() -> None:
    picture = torch.zeros(1, 3, 32, 32)
    picture[:, :, 8:16, 8:16] = 1
    still, moved = torch.zeros(1, 2, 12, 12), torch.zeros(1, 2, 12, 12)
    moved[:, 0] = 8 / 16  # to look half of half the side further right is to move the picture left by 8 pixels
    torch.testing.assert_close(warp(picture, still), picture, rtol=0, atol=1e-5)
    torch.testing.assert_close(warp(picture, moved)[..., :24], picture[..., 8:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16)])
def test_orthogonalised_keeps_directions_and_evens_sizes(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    sizes = torch.diagonal(u.T @ orthogonalised([matrix])[0] @ v.T)
    assert sizes.min() > 0.3 and sizes.max() < 1.3


def test_orthogonalised_matrices_do_not_depend_on_their_company() -> None:
    shapes = [(8, 30), (30, 8), (16, 16), (8, 8), (40, 16)]
    matrices = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)]
    for together, matrix in zip(orthogonalised(matrices), matrices, strict=True):
        torch.testing.assert_close(together, orthogonalised([matrix])[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(together, orthogonalised([matrix * 100])[0], rtol=0, atol=1e-5)
    assert torch.equal(orthogonalised([torch.zeros(4, 6)])[0], torch.zeros(4, 6))


def test_unlabelled_pictures_and_bad_settings_are_refused(trained: Path) -> None:
    with pytest.raises(StudyError, match="resolution 20 is not a multiple of 8"):
        parse(JudgeSettings, {"resolution": 20}, "judges.judge.settings")
    with pytest.raises(StudyError, match="did you mean 'num_images'"):
        parse(JudgeSettings, {"num_image": 20}, "judges.judge.settings")
    results = trained.parents[2]
    folder = put(results, "samples", "x").parent
    from mdm.evaluate.archive import ArrayStream, write_archive

    text = {"keys": ["a"], "captions": ["one"], "labels": ["{}"]}
    arrays = {"images_16": np.zeros((1, 16, 16, 3), np.uint8), **{k: np.array(v) for k, v in text.items()}}
    write_archive(folder / "images.npz", {name: ArrayStream.of(array) for name, array in arrays.items()})
    with pytest.raises(ArtifactError, match="pictures without labels"):
        open_labelled(folder, 16)
