"""ImageNet from tars and folders, FFHQ from its folder: the same pictures, classes by rank, wrong files refused."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from test_packages import add

from mdm.config import StudyError
from mdm.data.sources import ffhq, imagenet
from mdm.data.sources import registry as sources
from mdm.files.atomic import ArtifactError

SYNSETS = ("n02084071", "n01440764", "n01443537")
NAMES = "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn02084071 Airedale, terrier\n"


def encoded(seed, format="JPEG", size=(24, 20)):
    stream = io.BytesIO()
    picture = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(picture).resize(size).save(stream, format=format)
    return stream.getvalue()


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """The training set as tar of tars and as folders, the validation set as a tar with its table."""
    with tarfile.open(tmp_path / "train.tar", "w") as outer:
        for k, synset in enumerate(SYNSETS):
            stream = io.BytesIO()
            (tmp_path / "train" / synset).mkdir(parents=True)
            with tarfile.open(fileobj=stream, mode="w") as inner:
                for n in range(4):
                    name, data = f"{synset}_{n}.JPEG", encoded(10 * k + n)
                    add(inner, name, data)
                    (tmp_path / "train" / synset / name).write_bytes(data)
            add(outer, f"{synset}.tar", stream.getvalue())
    with tarfile.open(tmp_path / "val.tar", "w") as opened:
        for n in range(3):
            add(opened, f"ILSVRC2012_val_{n + 1:08d}.JPEG", encoded(100 + n))
    lines = [f"ILSVRC2012_val_{n + 1:08d},{SYNSETS[n]} 1 2 3 4 " for n in range(3)]
    (tmp_path / "solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
    (tmp_path / "names.txt").write_text(NAMES)
    monkeypatch.setattr(imagenet, "CLASSES", 3)
    for split in ("train", "val"):
        md5 = hashlib.md5((tmp_path / f"{split}.tar").read_bytes()).hexdigest()
        monkeypatch.setitem(imagenet.MD5_OF, split, md5)
    return tmp_path


def settings(copies, path="train.tar", **more):
    layout = "tar" if path.endswith(".tar") else "folders"
    given = {"num_images": 12, "resolution": 16, "path": str(copies / path), "layout": layout}
    return imagenet.Settings(**{**given, **more})


def read(chosen):
    rows = list(imagenet.index(chosen))
    return rows, dict(imagenet.pictures(rows, chosen))


def test_tar_of_tars_and_folders_give_the_same(copies):
    tar, from_tar = read(settings(copies))
    folders, from_folders = read(settings(copies, "train"))
    assert [row.columns["file"] for row in tar] == [row.columns["file"] for row in folders]
    assert from_tar == from_folders and len(from_tar) == 12
    picture = Image.open(io.BytesIO(from_tar[tar[0].key].data))
    synset, file = tar[0].columns["file"].split("/")
    assert picture.size == (16, 16) and (copies / "train" / synset / file).is_file()


def test_a_class_is_the_rank_of_its_wordnet_id(copies):
    expected = {"n01440764": 0, "n01443537": 1, "n02084071": 2}
    for row in imagenet.index(settings(copies)):
        assert row.labels == {"class": expected[row.columns["file"].split("/")[0]]} and row.caption == ""
    rows = imagenet.index(settings(copies, names=str(copies / "names.txt"), captioned=True))
    assert {row.caption for row in rows} == {"a photo of a tench", "a photo of a goldfish", "a photo of an Airedale"}


def test_the_first_pictures_are_of_all_classes(copies):
    rows = list(imagenet.index(settings(copies, num_images=6)))
    assert len({row.labels["class"] for row in rows}) == 3
    assert [row.columns["file"] for row in imagenet.index(settings(copies))][:6] == [
        row.columns["file"] for row in rows
    ]


def test_validation_takes_its_classes_from_the_table(copies):
    given = {"split": "val", "num_images": 3, "val_classes": str(copies / "solution.csv")}
    rows, found = read(settings(copies, "val.tar", **given))
    by_file = {row.columns["file"]: row for row in rows}
    assert set(by_file) == {f"{SYNSETS[n]}/ILSVRC2012_val_{n + 1:08d}.JPEG" for n in range(3)}
    assert len(found) == 3 and not any(isinstance(picture, str) for picture in found.values())
    with pytest.raises(ArtifactError, match=r"name LOC_val_solution\.csv in `val_classes`"):
        list(imagenet.index(settings(copies, "val.tar", split="val", num_images=3)))


def test_small_pictures_are_enlarged(copies):
    _, found = read(settings(copies, resolution=64))
    assert {Image.open(io.BytesIO(picture.data)).size for picture in found.values()} == {(64, 64)}


def test_missing_and_other_copies_are_told(copies):
    with pytest.raises(ArtifactError, match=r"sign up at image-net\.org.*ILSVRC2012_img_train\.tar"):
        list(imagenet.index(settings(copies, "nothing.tar")))
    (copies / "train.tar").write_bytes(b"another")
    with pytest.raises(ArtifactError, match="it is another file, or damaged"):
        list(imagenet.index(settings(copies)))
    (copies / "empty").mkdir()
    with pytest.raises(ArtifactError, match="holds no folders of classes"):
        list(imagenet.index(settings(copies, "empty")))
    with pytest.raises(ArtifactError, match="is a folder, not layout: tar"):
        list(imagenet.index(settings(copies, "train", layout="tar")))
    (copies / "names.txt").write_text("n01440764 tench\n")
    with pytest.raises(ArtifactError, match="has no line for n01443537"):
        list(imagenet.index(settings(copies, "train", names=str(copies / "names.txt"), captioned=True)))
    with pytest.raises(StudyError, match="write both or neither"):
        sources.resolve("imagenet", {"num_images": 1, "resolution": 8, "path": "x", "captioned": True}, "study")


def test_a_part_of_imagenet_is_not_imagenet(copies, monkeypatch):
    monkeypatch.setattr(imagenet, "CLASSES", 1000)
    with pytest.raises(ArtifactError, match="has 3 classes, ImageNet-1k has 1000"):
        list(imagenet.index(settings(copies)))


# --- FFHQ --------------------------------------------------------------------------------------------------


@pytest.fixture
def portraits(tmp_path):
    """Numbers on both sides of the authors' split, in folders of thousands, with their metadata."""
    known = {}
    for number in (3, 0, 59_999, 60_000, 69_001):
        file = tmp_path / "images" / f"{number // 1000 * 1000:05d}" / f"{number:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(number, "PNG", (32, 32)))
        md5 = hashlib.md5(file.read_bytes()).hexdigest()
        known[str(number)] = {"image": {"file_md5": md5}, "metadata": {"license": f"licence {number % 2}"}}
    (tmp_path / "ffhq.json").write_text(json.dumps(known))
    return tmp_path


def of_ffhq(portraits, **more):
    given = {
        "num_images": 5,
        "resolution": 16,
        "path": str(portraits / "images"),
        "metadata": str(portraits / "ffhq.json"),
        "proved": True,
    }
    return ffhq.Settings(**{**given, **more})


@pytest.mark.parametrize(
    ("split", "numbers"),
    [("all", [0, 3, 59_999, 60_000, 69_001]), ("train", [0, 3, 59_999]), ("validation", [60_000, 69_001])],
)
def test_the_authors_split(portraits, split, numbers):
    rows = list(ffhq.index(of_ffhq(portraits, split=split)))
    assert [int(row.columns["number"]) for row in rows] == numbers
    assert {row.caption for row in rows} == {"a photo of a face"}
    assert rows[0].columns["licence"] == f"licence {numbers[0] % 2}"


def test_portraits_are_proved_where_the_metadata_are_given(portraits):
    chosen = of_ffhq(portraits)
    rows = list(ffhq.index(chosen))
    assert {Image.open(io.BytesIO(picture.data)).size for _, picture in ffhq.pictures(rows, chosen)} == {(16, 16)}
    (portraits / "images" / "00000" / "00003.png").write_bytes(encoded(1, "PNG", (32, 32)))
    with pytest.raises(ArtifactError, match=r"00003\.png is not the portrait"):
        list(ffhq.pictures(rows, chosen))
    unproved = of_ffhq(portraits, metadata=None, proved=False)
    assert len(list(ffhq.pictures(list(ffhq.index(unproved)), unproved))) == 5


def test_portraits_have_labels_and_copies_but_no_true_class(portraits):
    chosen = of_ffhq(portraits, label="random", random_classes=3, label_seed=1024, copies={"count": 2, "of": 1})
    rows = list(ffhq.index(chosen))
    assert [row.columns["number"] for row in rows] == ["0", "3", "59999", "60000", "69001", "0"]
    assert rows[5].labels == rows[0].labels and rows[0].labels["copies"] == 2
    assert max(row.labels["class"] for row in rows) + 1 == ffhq.label_count(chosen)
    pictures = dict(ffhq.pictures(rows, chosen))
    assert pictures[rows[5].key].data == pictures[rows[0].key].data
    with pytest.raises(StudyError, match="portraits have none; write label: random, unique or none"):
        sources.resolve("ffhq", {"num_images": 1, "resolution": 16, "path": "x", "label": "class"}, "study")


def test_a_missing_folder_says_how_to_get_it(portraits):
    with pytest.raises(ArtifactError, match=r"NVlabs/ffhq-dataset .*name that folder in `path`"):
        list(ffhq.index(of_ffhq(portraits, path="nowhere")))
    with pytest.raises(ArtifactError, match="correct `metadata`"):
        list(ffhq.index(of_ffhq(portraits, metadata="nowhere.json")))
    with pytest.raises(StudyError, match="write both or neither"):
        sources.resolve("ffhq", {"num_images": 1, "resolution": 16, "path": "x", "proved": True}, "study")
    with pytest.raises(StudyError, match="write at most that"):
        sources.resolve("ffhq", {"num_images": 1, "resolution": 2048, "path": "x"}, "study")
