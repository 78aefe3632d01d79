"""CIFAR-10 from its package and from the authors' archive: the same pictures, subsets and labels as asked for."""

import base64
import collections
import dataclasses
import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from repository import ROOT
from test_packages import tgz

from mdm.config import StudyError
from mdm.data.fetch.packages import archive
from mdm.data.sources import cifar10 as cifar
from mdm.data.sources import registry as sources
from mdm.files.atomic import ArtifactError
from mdm.files.hashes import sha256_file

GOLDEN = ROOT / "tests" / "numerics" / "golden"
# Of the first twelve pictures at 8 px as the tools of sail-sg/DiffMemorize 39efb7c make them, [12, 8, 8, 3].
FIRST_AT_8 = "6c444835ee043bd018b0b8097ebce55f8dda898f205a6ad0a46d46ae24fb29a9"
COUNT = 10  # pictures in a batch of the made-up archives


def made(seed):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8), random.permutation(COUNT) % 10


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Both archives, with ten pictures in each batch."""
    monkeypatch.setattr(cifar, "BATCH", COUNT)
    batches = {name: made(k) for k, name in enumerate([*cifar.BATCHES["train"], "test_batch"])}
    packed, binary = {}, {}
    for name, (pixels, labels) in batches.items():
        stream = io.BytesIO()
        Image.fromarray(pixels.reshape(COUNT, 1024, 3)).save(stream, format="PNG")
        packed[f"package/{name}.png"] = stream.getvalue()
        rows = np.concatenate([labels[:, None], pixels.transpose(0, 3, 1, 2).reshape(COUNT, -1)], axis=1)
        binary[f"cifar-10-batches-bin/{name}.bin"] = rows.astype(np.uint8).tobytes()
    for split, names in cifar.BATCHES.items():
        labels = np.concatenate([batches[name][1] for name in names]).tolist()
        packed[f"package/{split}_lables.json"] = json.dumps(labels).encode()
    path = tgz(tmp_path / cifar.PACKAGE.file, **packed)
    hash = "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    monkeypatch.setattr(cifar, "PACKAGE", dataclasses.replace(cifar.PACKAGE, published=hash))
    monkeypatch.setattr(cifar, "OFFICIAL_SHA256", sha256_file(tgz(tmp_path / cifar.OFFICIAL, **binary)))
    return tmp_path


def settings(folder, **more):
    return cifar.Settings(**{"num_images": 50, "packages": str(folder), **more})


def read(chosen):
    rows = list(cifar.index(chosen))
    return rows, [
        np.asarray(Image.open(io.BytesIO(picture.data))) for _, picture in sorted(cifar.pictures(rows, chosen))
    ]


@pytest.mark.parametrize(("split", "first"), [("train", 0), ("test", 5)])
def test_both_archives_give_the_pictures_in_order(folder, split, first):
    count = 50 if split == "train" else 10
    expected = np.concatenate([made(first + k)[0] for k in range(count // COUNT)])
    for path in (None, str(folder / cifar.OFFICIAL)):
        rows, pixels = read(settings(folder, split=split, num_images=count, path=path))
        np.testing.assert_array_equal(pixels, expected)
        labels = np.concatenate([made(first + k)[1] for k in range(count // COUNT)])
        assert [row.labels["class"] for row in rows] == labels.tolist()
        assert rows[3].caption.split()[-1] == cifar.CLASSES[labels[3]]
    assert {"a photo of an airplane", "a photo of a truck"} <= {row.caption for row in rows}


def test_a_balanced_subset_has_the_first_of_each_class(folder):
    rows = list(cifar.index(settings(folder, num_images=6, balanced=True, classes=("dog", "cat", "ship"))))
    assert collections.Counter(row.labels["class"] for row in rows) == {3: 2, 5: 2, 8: 2}
    numbers = [int(row.columns["number"]) for row in rows]
    labels = np.concatenate([made(k)[1] for k in range(5)])
    assert numbers == sorted(np.concatenate([np.flatnonzero(labels == c)[:2] for c in (3, 5, 8)]).tolist())


def test_random_and_unique_labels(folder):
    unique = list(cifar.index(settings(folder, num_images=20, label="unique", balanced=True)))
    assert [row.labels["class"] for row in unique] == list(range(20))
    by_number = {}
    for count in (20, 50):
        rows = list(
            cifar.index(settings(folder, num_images=count, label="random", random_classes=4, seed=1, balanced=True))
        )
        for row in rows:
            assert by_number.setdefault(row.columns["number"], row.labels["class"]) == row.labels["class"]
    assert set(by_number.values()) == {0, 1, 2, 3}
    other = list(cifar.index(settings(folder, label="random", random_classes=4, seed=2)))
    assert [row.labels["class"] for row in other] != [row.labels["class"] for row in rows]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": "random"}, "needs random_classes and seed"), ({"seed": 1}, "have no effect with label: class"),
        ({"balanced": True, "num_images": 15}, "write a multiple"), ({"classes": ["cat", "cat"]}, "stands twice"),
        ({"classes": ["kitten"]}, "airplane"), ({"resolution": 64}, "32"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(given, message):
    with pytest.raises(StudyError, match=message):
        sources.resolve("cifar10", {"num_images": 20, **given}, "study")


def test_another_archive_is_refused(folder):
    other = folder / "other.tar.gz"
    other.write_bytes(b"something else")
    with pytest.raises(ArtifactError, match="it is another file"):
        list(cifar.index(settings(folder, path=str(other))))
    with pytest.raises(ArtifactError, match="leave it out for the package"):
        list(cifar.index(settings(folder, path=str(folder / "no.tar.gz"))))


def test_where_it_is_read_from_is_no_part_of_the_recipe():
    one, two = (sources.resolve("cifar10", {"num_images": 20, "path": path}, "t") for path in (None, "x.tar.gz"))
    assert one == two


@pytest.mark.slow
def test_the_real_package_where_it_can_be_fetched(tmp_path):
    """The published channel means and first test labels of CIFAR-10."""
    try:
        archive(cifar.PACKAGE, tmp_path)
    except ArtifactError as error:
        pytest.skip(f"the package cannot be fetched here: {error}")
    chosen = settings(tmp_path, split="test", num_images=10_000)
    rows = list(cifar.index(chosen))
    assert [row.labels["class"] for row in rows[:10]] == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert collections.Counter(row.labels["class"] for row in rows) == dict.fromkeys(range(10), 1000)
    _, small = read(settings(tmp_path, num_images=12, resolution=8))
    assert hashlib.sha256(np.array(small).tobytes()).hexdigest() == FIRST_AT_8
    known = np.load(GOLDEN / "cifar10_labels.npz")["labels"]
    assert cifar._labels(settings(tmp_path))[: len(known)] == known.tolist()
    _, pixels = read(settings(tmp_path, split="train", num_images=10_000))
    np.testing.assert_allclose(np.mean(pixels, axis=(0, 1, 2)) / 255, (0.4914, 0.4822, 0.4465), atol=0.004)
