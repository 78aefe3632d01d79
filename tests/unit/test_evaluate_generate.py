"""Sampled pictures: picture k is picture k, whatever the batch and however often the job was killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_artifacts import network, put, ref, samples, scenes, text

from mdm.config.recipe import SamplesRecipe
from mdm.data.rows import to_bytes
from mdm.evaluate import generate as module
from mdm.evaluate.generate import generate
from mdm.evaluate.painter import Painter
from mdm.files.artifact import read_recipe
from mdm.files.atomic import ArtifactError, read_json


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, Path]:
    """Results folder with an untrained network, prompts and their embeddings."""
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("results")
    prompts = scenes(results, 20)
    return results, network(results), prompts, text(results, prompts)


@pytest.fixture(scope="module")
def drawn(world: tuple[Path, Path, Path, Path]) -> Path:
    recipe = samples(*world)
    generate(recipe, batch_images=4)
    return recipe.parent


def test_a_snapshot_draws_as_a_stage_with_its_weights(world: tuple[Path, Path, Path, Path], drawn: Path) -> None:
    results, train, prompts, embeddings = world
    snapshot = put(results, "snapshot", "r16-8", train=ref(train), images=8)
    shutil.copy(train.with_name("weights.safetensors"), snapshot.parent)
    recipe = samples(results, snapshot, prompts, embeddings)
    generate(recipe, batch_images=4)
    assert recipe.parent != drawn
    assert {name: array.tobytes() for name, array in arrays(recipe.parent).items()} == {
        name: array.tobytes() for name, array in arrays(drawn).items()
    }


def arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "images.npz", allow_pickle=False) as archive:
        return dict(archive)


def test_archive_grids_and_manifest(world: tuple[Path, Path, Path, Path], drawn: Path) -> None:
    found = arrays(drawn)
    assert found["images_16"].shape == (10, 16, 16, 3)
    assert found["images_8"].shape == (10, 8, 8, 3)
    assert found["ids"].tolist() == list(range(10))
    assert found["captions"][0] == (world[2].with_name("index.tsv").read_text().split("\n")[1].split("\t")[1])
    assert json.loads(found["labels"][0])["count"] in (1, 2, 3, 4)
    assert len({picture.tobytes() for picture in found["images_16"]}) == 10
    assert {path.name for path in drawn.iterdir()} == {
        "recipe.json", "images.npz", "grid_8.png", "grid_16.png", "manifest.json"
    }  # fmt: skip
    manifest = read_json(drawn / "manifest.json")
    # Three steps, each with and without the caption.
    assert manifest["network_evaluations_per_image"] == 6
    assert manifest["num_images"] == 10
    assert manifest["seconds"] > 0


def test_batches_do_not_matter(world: tuple[Path, Path, Path, Path], drawn: Path) -> None:
    whole = arrays(drawn)["images_16"].astype(int)
    recipe = read_recipe(drawn / "recipe.json", SamplesRecipe)
    painter = Painter(recipe, world[0], torch.device("cpu"))
    captions = arrays(drawn)["captions"].tolist()
    alone = painter.paint([7], captions[7:8])[16][0]
    # Sums in another order may move a value across a rounding edge, never further.
    assert np.abs(alone - whole[7]).max() <= 1


def test_a_killed_run_continues_and_ends_the_same(
    world: tuple[Path, Path, Path, Path], drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (drawn / "images.npz").read_bytes()
    for name in ("images.npz", "manifest.json"):
        (drawn / name).unlink()
    paint, calls = Painter.paint, []

    def dies_in_the_third_batch(self: Painter, ids: range, *prompts: object) -> dict[int, np.ndarray]:
        calls.append(ids[0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return paint(self, ids, *prompts)

    monkeypatch.setattr(Painter, "paint", dies_in_the_third_batch)
    with pytest.raises(KeyboardInterrupt):
        generate(drawn / "recipe.json", batch_images=4)
    assert not (drawn / "images.npz").exists()
    generate(drawn / "recipe.json", batch_images=4)
    assert calls == [0, 4, 8, 8]
    assert (drawn / "images.npz").read_bytes() == before
    assert read_json(drawn / "manifest.json")["network_evaluations_per_image"] == 6
    assert not (drawn / "partial").exists()


def test_too_few_prompts_are_refused(world: tuple[Path, Path, Path, Path]) -> None:
    with pytest.raises(ArtifactError, match="has 20 captions, but num_images is 21; write at most 20"):
        generate(samples(*world, num_images=21))


def test_bytes_are_the_inverse_of_the_loader() -> None:
    values = torch.arange(256).to(torch.uint8)
    pictures = (values.float() / 127.5 - 1).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert to_bytes(pictures)[0, :, :, 0].flatten().tolist() == list(range(256))


def test_small_pictures_are_drawn_many_at_a_time_and_large_ones_as_ever() -> None:
    assert [module.at_once(sizes) for sizes in ([8], [16, 8], [32, 16], [64, 32, 16], [256])] == [256, 256, 128, 32, 32]
