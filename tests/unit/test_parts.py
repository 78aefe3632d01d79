"""A protocol drawn by many jobs: the archive of one job, whoever is killed, and only of parts that fit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_artifacts import network, put, ref, samples, scenes, text
from PIL import Image

from mdm.config.sizes import Clip
from mdm.evaluate import generate as generate_module
from mdm.evaluate import part_files
from mdm.evaluate.archive import ArrayStream, read_array, write_archive
from mdm.evaluate.batching import divided, part_ids, part_name, whole_batches
from mdm.evaluate.gather import gather
from mdm.evaluate.generate import Drawing, draw_part, generate
from mdm.evaluate.painter import Painter
from mdm.files.atomic import ArtifactError, read_json, write_atomic

BATCH, COUNT = 4, 22
World = tuple[Path, Path, Path, Path]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Results folder with an untrained network, prompts and their embeddings."""
    torch.set_num_threads(1)
    results = tmp_path_factory.mktemp("results")
    prompts = scenes(results, 28)
    return results, network(results), prompts, text(results, prompts)


@pytest.fixture(scope="module")
def by_one(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what one job draws, kept apart from what the tests make."""
    recipe = samples(*world, num_images=COUNT)
    generate(recipe, batch_images=BATCH)
    kept = tmp_path_factory.mktemp("one") / "samples"
    shutil.move(recipe.parent, kept)
    return kept


@pytest.fixture
def recipe(world: World, by_one: Path) -> Path:
    """The recipe in an empty folder."""
    path = samples(*world, num_images=COUNT)
    for entry in path.parent.iterdir():
        if entry != path:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return path


def draw(recipe: Path, size: int, *numbers: int) -> None:
    """Draw all parts of this size, or some of them, in another order than that of their pictures."""
    parts = divided(COUNT, size)
    for ids in reversed([parts[number] for number in numbers] or parts):
        draw_part(recipe, ids, BATCH)


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def described(folder: Path) -> dict:
    return {key: value for key, value in read_json(folder / "manifest.json").items() if key != "seconds"}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".npz", ".png")}


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_any_number_of_parts_gives_the_files_of_one_job(recipe: Path, by_one: Path, count: int) -> None:
    size = whole_batches(-(-COUNT // count), BATCH)
    assert len(divided(COUNT, size)) == count
    draw(recipe, size)
    assert not list(recipe.parent.glob("partial/*/*.npz"))
    gather(recipe, size)
    assert content(recipe.parent) == content(by_one)
    assert described(recipe.parent) == described(by_one)
    assert {path.name for path in recipe.parent.iterdir()} == {path.name for path in by_one.iterdir()}


def test_seven_parts_the_last_of_them_smaller(world: World) -> None:
    recipe = samples(*world, num_images=26)
    generate(recipe, BATCH)
    before = content(recipe.parent), described(recipe.parent)
    (recipe.parent / "manifest.json").unlink()
    parts = divided(26, BATCH)
    assert [len(ids) for ids in parts] == [4] * 6 + [2]
    for ids in parts[1::2] + parts[::2]:
        draw_part(recipe, ids, BATCH)
    gather(recipe)
    assert (content(recipe.parent), described(recipe.parent)) == before


def test_another_split_or_none_draws_nothing_twice(recipe: Path, by_one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, paint = [], Painter.paint

    def noted(self: Painter, ids: range, *rest: object) -> dict:
        drawn.append(ids[0])
        return paint(self, ids, *rest)

    monkeypatch.setattr(Painter, "paint", noted)
    draw(recipe, 8, 0, 1)
    assert sorted(drawn) == [0, 4, 8, 12]
    draw(recipe, 12)
    assert sorted(drawn) == [0, 4, 8, 12, 16, 20]
    (recipe.parent / "parts" / "0000012-0000021.npz").unlink()
    generate(recipe, BATCH)
    assert sorted(drawn) == [0, 4, 8, 12, 16, 16, 20, 20]
    assert content(recipe.parent) == content(by_one) and not (recipe.parent / "parts").exists()
    (recipe.parent / "manifest.json").unlink()
    draw(recipe, 8, 0)
    draw(recipe, 12)
    gather(recipe, 12)  # the part 0-7 of before lies there too, and is left aside
    assert content(recipe.parent) == content(by_one)


PROGRAM = """
import os, sys, torch
from mdm.evaluate import generate
from mdm.evaluate.painter import Painter
calls, paint = [], Painter.paint
def deadly(self, *asked):
    calls.append(asked)
    return paint(self, *asked) if len(calls) < 2 else os.kill(os.getpid(), 9)
Painter.paint = deadly
torch.set_num_threads(1)
generate.draw_part(sys.argv[1], range(8, 16), {batch})
"""


def test_a_killed_part_leaves_the_others_and_goes_on(
    recipe: Path, by_one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(recipe, 8, 0)
    before = (recipe.parent / "parts" / "0000000-0000007.npz").stat().st_mtime_ns
    killed = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(batch=BATCH), recipe],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in recipe.parent.glob("parts/*")] == ["0000000-0000007.npz"]
    assert [path.stem for path in recipe.parent.glob("partial/*/*.npz")] == ["0000008"]
    with pytest.raises(ArtifactError, match=r"holds the pictures 8 to 21; draw them: .* --part 8-21"):
        gather(recipe)
    drawn, paint = [], Painter.paint
    monkeypatch.setattr(Painter, "paint", lambda self, ids, *a: (drawn.append(ids[0]), paint(self, ids, *a))[1])
    draw(recipe, 8, 1, 2)
    assert drawn == [16, 20, 12]
    assert (recipe.parent / "parts" / "0000000-0000007.npz").stat().st_mtime_ns == before
    gather(recipe)
    assert content(recipe.parent) == content(by_one)


def change(path: Path, **origin: object) -> None:
    """Write another origin into a part."""
    arrays = dict(np.load(path, allow_pickle=False))
    said = json.loads(str(arrays["made"][0]))
    said["asked"] = origin.pop("asked", said["asked"])
    said["origin"] |= origin
    arrays["made"] = np.array([json.dumps(said)])
    write_archive(path, {name: ArrayStream.of(array) for name, array in arrays.items()})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("weights", "f" * 64, r"0000008-0000015\.npz was drawn with weights of train/r16.* ffffffffffff, and now it"),
        ("recipe", "0123456789ab", r"was drawn for the recipe 0123456789ab, and now .* delete it and run again"),
        ("batch_images", 8, r"was drawn in batches of 8, and now it is 4"),
        ("asked", "0", "was drawn for other captions or classes than there are now"),
    ],
)
def test_parts_of_another_drawing_are_refused(recipe: Path, key: str, value: object, message: str) -> None:
    draw(recipe, 8)
    change(recipe.parent / "parts" / "0000008-0000015.npz", **{key: value})
    with pytest.raises(ArtifactError, match=message):
        gather(recipe, 8)
    assert not (recipe.parent / "images.npz").exists() and not (recipe.parent / "manifest.json").exists()


def test_other_devices_are_named(recipe: Path, by_one: Path) -> None:
    draw(recipe, 12)
    change(recipe.parent / "parts" / "0000012-0000021.npz", device="NVIDIA H200", torch="9.9")
    gather(recipe, 12)
    manifest = read_json(recipe.parent / "manifest.json")
    assert manifest["device"] == "cpu, NVIDIA H200"
    assert manifest["drawn_by"]["0000012-0000021"] == {"torch": "9.9", "device": "NVIDIA H200"}
    assert manifest["drawn_by"].keys() == {"0000000-0000011", "0000012-0000021"}
    assert "drawn_by" not in read_json(by_one / "manifest.json")


def test_missing_doubled_and_damaged_parts_are_refused(recipe: Path) -> None:
    parts = recipe.parent / "parts"
    draw(recipe, 8)
    draw(recipe, 12, 0)
    with pytest.raises(ArtifactError, match=r"0000000-0000007\.npz and 0000000-0000011\.npz both hold picture 0;"):
        gather(recipe)
    (parts / "0000000-0000011.npz").unlink()
    shutil.copy(parts / "0000000-0000007.npz", parts / "0000008-0000015.npz")
    with pytest.raises(ArtifactError, match="does not hold the pictures 8 to 15 of its name; delete it"):
        gather(recipe)
    whole = (parts / "0000000-0000007.npz").read_bytes()
    write_atomic(parts / "0000008-0000015.npz", whole[:-100])
    with pytest.raises(ArtifactError, match=r"0000008-0000015\.npz is no part of drawn pictures .*; delete it and run"):
        gather(recipe)
    (parts / "0000008-0000015.npz").unlink()
    with pytest.raises(ArtifactError, match=r"holds the pictures 8 to 15; draw them: .*recipe\.json --part 8-15"):
        gather(recipe, 8)
    shutil.copy(parts / "0000016-0000021.npz", parts / "0000024-0000029.npz")
    with pytest.raises(ArtifactError, match="does not hold the pictures 24 to 29"):
        gather(recipe)


def test_a_flipped_bit_of_a_picture_is_found(recipe: Path) -> None:
    draw(recipe, 12)
    path = recipe.parent / "parts" / "0000012-0000021.npz"
    data, picture = bytearray(path.read_bytes()), read_array(path, "images_16")[5].tobytes()
    data[data.index(picture) + 7] ^= 1
    write_atomic(path, bytes(data))
    with pytest.raises(ArtifactError, match=r"0000012-0000021\.npz is damaged .*; delete it and run again"):
        gather(recipe, 12)
    assert not (recipe.parent / "images.npz").exists()


def test_parts_that_cut_batches_are_refused(recipe: Path) -> None:
    for ids, message in {
        range(2, 8): "part 2-7 cuts batches of 4 pictures, .* write 0-7",
        range(10): "write 0-11",
        range(20, 21): "write 20-21",
        range(20, 24): "there is no picture 23: the recipe asks for 22",
    }.items():
        with pytest.raises(ArtifactError, match=message):
            draw_part(recipe, ids, BATCH)
    for word in ("7", "8-7", "a-b", "-1-5"):
        with pytest.raises(ValueError, match="names no part; write its first and last picture, as in 0-1023"):
            part_ids(word)


def test_names_and_sizes_of_parts() -> None:
    assert whole_batches(1000, 32) == 1024 and whole_batches(1, 256) == 256 and whole_batches(64, 32) == 64
    assert [part_name(ids) for ids in divided(10, 4)] == ["0000000-0000003", "0000004-0000007", "0000008-0000009"]
    assert part_ids(part_name(range(4, 8))) == part_ids("4-7") == range(4, 8)


def test_pictures_that_no_data_set_asks_for(world: World) -> None:
    asking = {"sample": {"sampler": "ddim", "steps": 2}, "prompts": None, "num_images": 10}
    recipe = put(world[0], "samples", "free", train=ref(world[1]), text=ref(world[3]), **asking)
    generate(recipe, BATCH)
    before = content(recipe.parent)
    (recipe.parent / "manifest.json").unlink()
    for ids in divided(10, 8):
        draw_part(recipe, ids, BATCH)
    gather(recipe)
    assert content(recipe.parent) == before


def test_clips(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a painter of clips gives is divided and put together like pictures, frames and all."""

    def clips(self: Painter, ids: range, *_: object) -> dict:
        return {Clip(4, 8): np.stack([np.full((4, 8, 8, 3), 9 * number, np.uint8) for number in ids])}

    build = Painter.__init__

    def clip_painter(self: Painter, *asked: object) -> None:
        build(self, *asked)
        self.resolutions = (Clip(4, 8),)

    monkeypatch.setattr(Painter, "__init__", clip_painter)
    monkeypatch.setattr(Painter, "paint", clips)
    generate(recipe, BATCH)
    before, manifest = content(recipe.parent), described(recipe.parent)
    assert manifest["resolutions"] == ["4x8"] and set(before) == {"images.npz", "grid_4x8.png"}
    assert read_array(recipe.parent / "images.npz", "images_4x8").shape == (COUNT, 4, 8, 8, 3)
    assert pixels(recipe.parent / "grid_4x8.png").shape == (8 * 8, 4 * 8, 3)
    (recipe.parent / "manifest.json").unlink()
    draw(recipe, 12)
    gather(recipe, 12)
    assert (content(recipe.parent), described(recipe.parent)) == (before, manifest)


def test_a_part_says_what_it_is_drawn_from(recipe: Path) -> None:
    draw(recipe, 12, 1)
    part = part_files.Part.read(recipe.parent / "parts" / "0000012-0000021.npz")
    assert part.ids == range(12, 22) and part.origin.device in ("cpu", torch.cuda.is_available() and "cuda")
    assert part.origin.torch == torch.__version__ and part.origin.recipe == recipe.parent.name.rpartition("-")[2]
    assert [len(values) for values in part.costs().values()] == [3, 3]


def test_pictures_of_other_captions_are_not_taken_over(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(recipe, 8, 0)
    Drawing(recipe, BATCH).draw(range(8, 12))  # a batch that a killed job leaves
    rows = generate_module.rows_of
    monkeypatch.setattr(generate_module, "rows_of", lambda *asked: rows(*asked)[::-1])
    draw_part(recipe, range(12), BATCH)
    found = read_array(recipe.parent / "parts" / "0000000-0000011.npz", "images_16")
    shutil.rmtree(recipe.parent / "parts")
    draw_part(recipe, range(12), BATCH)
    assert np.array_equal(found, read_array(recipe.parent / "parts" / "0000000-0000011.npz", "images_16"))
