"""The loader: a pure function of (seed, images seen, manifest)."""

import json
import shutil

import numpy as np
import pytest
import torch
from caption_cache import load_encoder, write_cache
from PIL import Image
from test_shards import make_data

from mdm.data.batches.loader import Loader
from mdm.data.batches.reader import Pictures
from mdm.data.batches.skipped import SkippedLog, skipped
from mdm.data.pictures.decode import shrink
from mdm.data.text import cache
from mdm.files.atomic import ArtifactError
from mdm.train.example import Ahead


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("results")).parent


def loader(folder, batch=6, seed=0, resolution=16, **options):
    return Loader(folder, None, batch, seed, resolution, **options)


def test_every_epoch_shows_every_picture_once(folder):
    ids = loader(folder).ids(0, 60).reshape(3, 20)
    assert all(sorted(epoch) == list(range(20)) for epoch in ids)
    assert len({tuple(epoch) for epoch in ids}) == 3


def test_batches_resume_anywhere(folder):
    whole = loader(folder).ids(0, 120)
    for seen in (0, 6, 18, 54, 77):
        np.testing.assert_array_equal(loader(folder).batch(seen).ids, whole[seen : seen + 6])
    assert loader(folder, batch=50).batch(10).ids.tolist() == whole[10:60].tolist()


def test_order_depends_on_the_seed(folder):
    assert loader(folder, seed=1).ids(0, 20).tolist() != loader(folder, seed=2).ids(0, 20).tolist()
    assert loader(folder, seed=1).ids(0, 20).tolist() == loader(folder, seed=1).ids(0, 20).tolist()


def dealt(parts):
    """One batch from the parts of all ranks: they take its pictures in turn."""
    return torch.stack(parts, dim=1).flatten(0, 1)


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_share_the_same_batch(folder, world):
    one = loader(folder).batch(18)
    parts = [loader(folder, rank=rank, world=world).batch(18) for rank in range(world)]
    assert torch.equal(dealt([part.ids for part in parts]), one.ids)
    assert torch.equal(dealt([part.images for part in parts]), one.images)
    assert torch.equal(loader(folder).batch(18, rank=world - 1, world=world).ids, parts[-1].ids)


def test_images_are_those_of_the_ids(folder):
    batch, pictures = loader(folder).batch(3), Pictures(folder)
    assert batch.images.dtype == torch.uint8 and batch.images.shape == (6, 3, 16, 16)
    for id, image, caption in zip(batch.ids.tolist(), batch.images, batch.captions, strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0), pictures.image(id))
        assert caption == pictures.caption(id)


def test_keeping_pictures_and_being_ahead_change_nothing(folder):
    plain, kept = loader(folder, cache_bytes=0), loader(folder)
    ahead = Ahead(kept.batch, 6)
    for seen in (0, 6, 12, 18, 24, 3, 9, 60):
        assert same(plain.batch(seen), ahead.at(seen))


def test_an_error_of_the_next_batch_is_raised_when_it_is_asked_for():
    def reciprocal(number):
        return 12 / (4 - number)

    ahead = Ahead(reciprocal, 1)
    assert [ahead.at(number) for number in (1, 2, 3)] == [4, 6, 12]
    with pytest.raises(ZeroDivisionError):
        ahead.at(4)
    assert ahead.at(5) == -12


def test_smaller_pictures_are_exact_means(folder):
    batch, pictures = loader(folder, resolution=8).batch(0), Pictures(folder)
    for id, image in zip(batch.ids.tolist(), batch.images, strict=True):
        blocks = pictures.image(id).reshape(8, 2, 8, 2, 3).astype(float).mean(axis=(1, 3))
        np.testing.assert_array_equal(image.permute(1, 2, 0), np.rint(blocks))


def test_uneven_ratios_average_too():
    assert shrink(np.full((10, 10, 3), 7, dtype=np.uint8), 4).tolist() == np.full((4, 4, 3), 7).tolist()
    with pytest.raises(ArtifactError, match="cannot be shown at 20 px"):
        shrink(np.zeros((10, 10, 3), dtype=np.uint8), 20)


def test_bad_requests_are_refused(folder):
    with pytest.raises(ValueError, match="stored at 16 px, training asks for 32 px"):
        loader(folder, resolution=32)
    with pytest.raises(ValueError, match="cannot be shared by 4"):
        loader(folder, world=4)
    with pytest.raises(ValueError, match="rank 2"):
        loader(folder, rank=2, world=2)


def test_text_comes_with_the_pictures(folder, tmp_path):
    small = load_encoder({"name": "tiny-t5", "settings": {"channels": 8, "layers": 1, "heads": 2}})
    pictures = Pictures(folder)
    write_cache(tmp_path, [pictures.caption(k) for k in range(20)], small)
    embeddings = cache.Embeddings(tmp_path)
    batch = Loader(folder, embeddings, 4, 0, 16).batch(0)
    features, mask = embeddings.lookup(batch.captions)
    assert torch.equal(batch.text, features) and torch.equal(batch.mask, mask) and batch.text.shape[2] == 8


def same(a, b):
    return torch.equal(a.ids, b.ids) and torch.equal(a.images, b.images) and a.captions == b.captions


@pytest.fixture(scope="module")
def sequence(folder):
    """The uninterrupted run: ten batches of eight, one rank, no workers, nothing kept."""
    one = loader(folder, batch=8, cache_bytes=0)
    return [one.batch(seen) for seen in range(0, 80, 8)]


@pytest.mark.parametrize("workers", [0, 2, 4])
@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_ranks_and_workers_give_one_sequence(folder, sequence, world, workers):
    ranks = [loader(folder, batch=8, rank=rank, world=world, workers=workers, cache_bytes=0) for rank in range(world)]
    for step, whole in enumerate(sequence):
        parts = [rank.batch(8 * step) for rank in ranks]
        assert torch.equal(dealt([part.ids for part in parts]), whole.ids)
        assert torch.equal(dealt([part.images for part in parts]), whole.images)
        assert sum(zip(*(part.captions for part in parts), strict=True), ()) == whole.captions
        places = [place for row in zip(*(rank.images(8 * step) for rank in ranks), strict=True) for place in row]
        assert places == list(range(8 * step, 8 * step + 8))
    for rank in ranks:
        rank.close()


def test_resume_at_two_hundred_places(folder):
    whole, rng = loader(folder, batch=400).batch(0), np.random.default_rng(0)
    for seen in rng.integers(0, 390, 200).tolist():
        resumed = loader(folder, batch=10).batch(seen)
        assert torch.equal(resumed.ids, whole.ids[seen : seen + 10])
        assert torch.equal(resumed.images, whole.images[seen : seen + 10])
        assert resumed.captions == whole.captions[seen : seen + 10]


def damaged_copy(folder, copy, bad):
    """The data set with the pictures of these samples overwritten; every record still fits."""
    shutil.copytree(folder, copy)
    for shard, tar in enumerate(sorted((copy / "shards").glob("*.tar"))):
        content = bytearray(tar.read_bytes())
        for row, place in enumerate(json.loads(tar.with_suffix(".json").read_text())["files"]):
            if 8 * shard + row in bad:
                offset, size = place["png"]
                content[offset : offset + size] = bytes(size)
        tar.write_bytes(content)
    return copy


def test_bad_pictures_are_counted_and_replaced_by_the_rule(folder, tmp_path, capsys):
    bad = {3: 5, 4: 5, 15: 8, 19: 16}  # the next usable one of the shard (of 8), from its end back to its start
    copy, whole = damaged_copy(folder, tmp_path / "copy", bad), loader(folder, batch=20).batch(0)
    expected = [bad.get(number, number) for number in whole.ids.tolist()]
    by_kind = [{}, {"workers": 3}, {"cache_bytes": 0}]
    for options in by_kind:
        reading = loader(copy, batch=20, **options)
        found = reading.batch(0)
        assert found.ids.tolist() == expected
        assert set(reading.skipped) == set(bad) and "picture 00000003: it is not a picture" in reading.skipped[3]
        reading.batch(20)
        said = capsys.readouterr().out
        assert said.count("warning:") == 4 and said.count("picture 00000015") == 1  # told once
        reading.close()
    halves = [loader(copy, batch=20, rank=rank, world=2).batch(0).ids.tolist() for rank in range(2)]
    assert halves == [expected[0::2], expected[1::2]]
    np.testing.assert_array_equal(found.images[expected.index(5)].permute(1, 2, 0), Pictures(folder).image(5))


def test_bad_pictures_are_noted_over_restarts_and_kills(folder, tmp_path):
    copy, notes = damaged_copy(folder, tmp_path / "copy", {3: 5, 15: 8}), tmp_path / "notes"
    for start in (0, 20):
        loader(copy, batch=20, skipped_log=SkippedLog(notes, "training")).batch(start)
        with (notes / "skipped-training-0.jsonl").open("a") as stream:
            stream.write('{"number": 7, "rea')  # a kill in the middle of a line
    loader(copy, batch=20, rank=1, world=2, skipped_log=SkippedLog(notes, "training", rank=1)).batch(0)
    expected = {"samples": 2, "reasons": {"not a picture": 2}, "keys": ["00000003", "00000015"]}
    assert skipped(notes, "training") == expected
    assert skipped(notes, "validation") == {"samples": 0, "reasons": {}, "keys": []}


def test_a_shard_without_any_usable_picture_is_an_error(folder, tmp_path):
    copy = damaged_copy(folder, tmp_path / "copy", set(range(16, 20)))
    with pytest.raises(ArtifactError, match=r"no picture of a whole shard can be used; the first: .*not a picture"):
        loader(copy, batch=20).batch(0)


@pytest.fixture(scope="module")
def whole_pictures(tmp_path_factory):
    """A data set of the user's own, stored whole: 24 x 16 and 16 x 40 px, red rising along the longer side."""
    root = tmp_path_factory.mktemp("whole")
    (root / "mine").mkdir()
    for number, (width, height) in enumerate([(24, 16), (16, 40)]):
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[..., 0] = np.arange(width) if width > height else np.arange(height)[:, None]
        Image.fromarray(pixels).save(root / "mine" / f"{number}.png")
        (root / "mine" / f"{number}.txt").write_text(f"picture {number}")
    path = make_data(root, source="folder", path=str(root / "mine"), num_images=2, crop="none")
    return path.parent


def test_squares_are_cut_anew_for_each_image(whole_pictures):
    """Where the square begins is read from the red of its first pixel."""
    one = loader(whole_pictures, batch=400).batch(0)
    starts = one.images[:, 0, 0, 0].numpy()
    for number, ends in ((0, 8), (1, 24)):
        counts = np.bincount(starts[one.ids == number], minlength=ends + 1)
        assert len(counts) == ends + 1 and counts.min() > 0
    parts = [loader(whole_pictures, batch=400, rank=rank, world=4, workers=2).batch(0) for rank in range(4)]
    assert torch.equal(dealt([part.images for part in parts]), one.images)
    assert torch.equal(loader(whole_pictures, batch=10).batch(123).images, one.images[123:133])
    assert Pictures(whole_pictures).image(0)[0, 0, 0] == 4  # without a draw: the middle
    assert Pictures(whole_pictures).image(1)[0, 0, 0] == 12


def test_dct_decoding_is_a_policy_of_the_loader(tmp_path):
    """JPEGs of 64 px read at 16 px: near exact means under `dct`, equal to them under `exact`."""
    (tmp_path / "mine").mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).integers(60, 200, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "mine" / f"{number}.png")
        (tmp_path / "mine" / f"{number}.txt").write_text("noise")
    mine = make_data(
        tmp_path, source="folder", path=str(tmp_path / "mine"), num_images=4, resolution=64, stored="jpg"
    ).parent
    exact, dct = (loader(mine, batch=4, policy=policy).batch(0) for policy in ("exact", "dct"))
    expected = [shrink(Pictures(mine).image(number), 16).transpose(2, 0, 1) for number in exact.ids.tolist()]
    np.testing.assert_array_equal(exact.images, np.stack(expected))
    difference = (exact.images.float() - dct.images.float()).abs()
    assert torch.equal(exact.ids, dct.ids) and 0 < difference.mean() < 4


def test_readers_keep_few_shards_open(folder, monkeypatch):
    monkeypatch.setattr("mdm.data.batches.reader.OPEN_SHARDS", 1)
    reading, whole = loader(folder, batch=40, workers=4, cache_bytes=0), loader(folder, batch=40).batch(0)
    assert same(reading.batch(0), whole) and len(reading.pictures._open) == 1
    reading.close()


def test_a_truncated_shard_is_an_error(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    tar = copy / "shards/00002.tar"
    tar.write_bytes(tar.read_bytes()[:600])
    with pytest.raises(ArtifactError, match="shorter than its record"):
        Loader(copy, None, 20, 0, 16).batch(0)
