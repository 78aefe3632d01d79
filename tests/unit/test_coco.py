"""COCO by rules over its ids: the same pairs from zip and folder, each standard as its name says, proved files."""

import hashlib
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from mdm.config import StudyError
from mdm.data.shards.shard import index_data, read_index, write_manifest, write_shard
from mdm.data.sources import coco
from mdm.data.sources import registry as sources
from mdm.evaluate.protocol import Protocol
from mdm.files.artifact import digest
from mdm.files.atomic import ArtifactError, write_json
from mdm.files.hashes import sha256_file
from mdm.study import study
from mdm.study.outside_files import external_files
from mdm.study.standard_protocols import STANDARDS

IDS = (42, 7, 300, 9, 1001, 64)  # of pictures, not in order
SIZES = ((64, 48), (48, 64), (40, 40), (16, 24), (64, 64), (50, 40))


def jpeg(image_id, size):
    picture = np.random.default_rng(image_id).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(picture).resize(size).save(stream, format="JPEG", quality=95)
    return stream.getvalue()


def annotations():
    """Each picture has two to four captions; caption ids run against the pictures' order."""
    images = [{"id": id, "file_name": f"COCO_val2014_{id:012d}.jpg", "license": 1 + k % 2} for k, id in enumerate(IDS)]
    captions = [
        {"id": 900 - 10 * k - n, "image_id": id, "caption": f"picture {id}\n caption {n}"}
        for k, id in enumerate(IDS) for n in range(2 + k % 3)
    ]  # fmt: skip
    licences = [{"id": 1, "name": "by"}, {"id": 2, "name": "by-sa"}]
    return {"images": images, "annotations": captions, "licenses": licences}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """val2014 in a zip and in a folder, its captions in a zip and as JSON; the zips' hashes are the known ones."""
    (tmp_path / "val2014").mkdir()
    with zipfile.ZipFile(tmp_path / "val2014.zip", "w") as opened:
        for id, size in zip(IDS, SIZES, strict=True):
            name, data = f"COCO_val2014_{id:012d}.jpg", jpeg(id, size)
            (tmp_path / "val2014" / name).write_bytes(data)
            opened.writestr(f"val2014/{name}", data)
    text = json.dumps(annotations())
    (tmp_path / "captions_val2014.json").write_text(text)
    with zipfile.ZipFile(tmp_path / "annotations_trainval2014.zip", "w") as opened:
        opened.writestr("annotations/captions_val2014.json", text)
    for name in ("val2014.zip", "annotations_trainval2014.zip"):
        monkeypatch.setitem(coco.SHA256_OF, name, sha256_file(tmp_path / name))
    return tmp_path


def settings(files, **more):
    return coco.Settings(**{
        "edition": 2014, "part": "val", "captions": "first", "num_images": 6, "resolution": 32,
        "images": str(files / "val2014.zip"), "annotations": str(files / "annotations_trainval2014.zip"), **more,
    })  # fmt: skip


def ids(rows):
    return [(int(row.columns["image_id"]), int(row.columns["caption_id"])) for row in rows]


def test_first_takes_the_caption_of_lowest_id_by_ascending_picture(files):
    lowest = {}
    for entry in annotations()["annotations"]:
        lowest[entry["image_id"]] = min(lowest.get(entry["image_id"], 10**6), entry["id"])
    rows = list(coco.index(settings(files)))
    assert ids(rows) == sorted(lowest.items())
    assert rows[0].columns["licence"] == "by-sa" and rows[0].columns["file"] == "COCO_val2014_000000000007.jpg"


def test_one_takes_each_picture_once_and_any_of_its_captions(files):
    seen = set()
    for seed in range(40):
        pairs = ids(coco.index(settings(files, captions="one", seed=seed)))
        assert sorted(image for image, _ in pairs) == sorted(IDS)
        seen |= set(pairs)
    assert len(seen) == len(annotations()["annotations"])  # every caption is drawn by some seed


def test_drawn_takes_each_caption_at_most_once_and_pictures_again(files):
    count = len(annotations()["annotations"])
    pairs = ids(coco.index(settings(files, captions="drawn", seed=1, num_images=count)))
    assert len(set(pairs)) == count and len({image for image, _ in pairs}) == len(IDS)
    assert ids(coco.index(settings(files, captions="drawn", seed=1, num_images=5))) == pairs[:5]
    assert ids(coco.index(settings(files, captions="drawn", seed=2, num_images=count))) != pairs


def test_the_rule_is_the_written_one(files):
    """Worked out by hand here, so that no change of the code can move an evaluation set unseen."""
    place = lambda what, id: hashlib.sha256(f"5:{what}:{id}".encode()).digest()  # noqa: E731
    captions = sorted((a["id"] for a in annotations()["annotations"]), key=lambda id: place("caption", id))
    assert [caption for _, caption in ids(coco.index(settings(files, captions="drawn", seed=5)))] == captions[:6]
    images = sorted(IDS, key=lambda id: place("image", id))
    assert [image for image, _ in ids(coco.index(settings(files, captions="one", seed=5)))] == images


def recipe(files, name, **more):
    chosen = settings(files, **more)
    given = {key: getattr(chosen, key) for key in chosen.model_fields_set}
    entry = {"kind": "data", "source": "coco", "shard_images": 4, "settings": sources.resolve("coco", given, "test")}
    path = files / name / "data" / f"coco-{digest(entry)}" / "recipe.json"
    path.parent.mkdir(parents=True)
    write_json(path, entry)
    write_json(path.with_name("handling.json"), sources.handling("coco", given, "test"))
    return path


def made(path):
    index_data(path)
    for shard in range(2):
        write_shard(path, shard)
    return write_manifest(path)


def test_zip_and_folder_give_the_same_data_set(files):
    one = recipe(files, "a", captions="one", seed=3)
    two = recipe(files, "b", captions="one", seed=3, images=str(files / "val2014"))
    assert one.parent.name == two.parent.name
    first, second = made(one), made(two)
    assert first["digest"] == second["digest"] and first["index_sha256"] == second["index_sha256"]
    assert first["samples"] == 6 and first["licences"] == {"by": 3, "by-sa": 3}


def test_pictures_are_cut_scaled_and_small_ones_enlarged(files):
    path = recipe(files, "a", resize="area")
    made(path)
    with tarfile.open(path.parent / "shards" / "00000.tar") as opened:
        for row in read_index(path.parent, 0, 4):
            assert Image.open(opened.extractfile(f"{row.key}.png")).size == (32, 32)  # one of them is 16 x 24 px


def test_a_changed_picture_is_noticed(files):
    path = recipe(files, "a", images=str(files / "val2014"))
    index_data(path)
    (files / "val2014" / "COCO_val2014_000000000007.jpg").write_bytes(jpeg(8, (64, 64)))
    with pytest.raises(ArtifactError, match="changed since the index was written"):
        write_shard(path, 0)


def test_missing_and_other_files_are_told(files):
    with pytest.raises(ArtifactError, match=r"no.*val2014\.zip; get it with `curl -o .* http.*/zips/val2014\.zip`"):
        list(coco.index(settings(files, images=str(files / "no" / "val2014.zip"))))
    with pytest.raises(ArtifactError, match=r"http.*/annotations/annotations_trainval2014\.zip"):
        list(coco.index(settings(files, annotations=str(files / "no.zip"))))
    known = sha256_file(files / "captions_val2014.json")
    bare = {"annotations": str(files / "captions_val2014.json")}
    with pytest.raises(ArtifactError, match=f"write captions_sha256: {known}"):
        list(coco.index(settings(files, **bare)))
    assert ids(coco.index(settings(files, **bare, captions_sha256=known))) == ids(coco.index(settings(files)))
    (files / "val2014.zip").write_bytes(b"another")
    with pytest.raises(ArtifactError, match="it is another file, or damaged"):
        list(coco.index(settings(files)))


def test_captions_of_pictures_that_are_not_there_are_told(files, monkeypatch):
    with zipfile.ZipFile(files / "val2014.zip", "w") as opened:
        opened.writestr("val2014/other.jpg", b"")
    monkeypatch.setitem(coco.SHA256_OF, "val2014.zip", sha256_file(files / "val2014.zip"))
    with pytest.raises(ArtifactError, match=r"holds no picture COCO_val2014_000000000007\.jpg"):
        list(coco.index(settings(files)))


def test_instances_are_no_captions(files):
    path = files / "instances.json"
    path.write_text(json.dumps({"images": [], "annotations": [{"id": 1, "image_id": 42, "bbox": []}]}))
    with pytest.raises(ArtifactError, match=r"holds no captions .*; name COCO's captions_val2014\.json"):
        list(coco.index(settings(files, annotations=str(path), captions_sha256=sha256_file(path))))


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"\xff", b'{"images": [], "annotations": []}', b'{"images": {}, "annotations": {}}',
     b'{"images": [], "annotations": [{"id": 1, "image_id": 42, "caption": "x"}]}'],
)  # fmt: skip
def test_files_that_are_no_captions_are_told(files, content):
    path = files / "own.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"own\.json .*captions"):
        list(coco.index(settings(files, annotations=str(path), captions_sha256=sha256_file(path))))


def test_a_zip_that_is_damaged_later_is_told(files):
    path = recipe(files, "a")
    index_data(path)
    content = bytearray((files / "val2014.zip").read_bytes())
    content[200:400] = bytes(200)
    for damaged in (bytes(content), b"no zip at all"):
        (files / "val2014.zip").write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"val2014\.zip .*(damaged|changed)"):
            write_shard(path, 0)


def test_drawing_needs_a_seed(files):
    with pytest.raises(ValueError, match="captions: drawn needs a seed"):
        settings(files, captions="drawn")


# --- named protocols ---------------------------------------------------------------------------------------


def with_standard(name, **more):
    year = 2017 if "5k" in name else 2014  # the study has the small set's files for its curves
    files = {"images": f"data/coco/val{year}.zip", "annotations": f"data/coco/annotations_trainval{year}.zip"}
    files |= {"train_images": "data/coco/train2014.zip"} if name.endswith("-train") else {}
    networks = {  # which claims of the study are about
        "inception": {"path": "weights/inception-2015-12-05.pt", "sha256": None},
        "clip": {"path": "weights/clip-vit-b-16.safetensors", "sha256": None, "model": "ViT-B-16-quickgelu"},
    }
    return study.load("paper", {"protocols.coco-fid30k": {"standard": name, "files": files, **networks, **more}})


def sides(name):
    loaded = with_standard(name)
    evaluation = loaded.runs[0].evaluations[0]
    prompts = loaded.recipe(loaded.recipe(evaluation.samples).prompts).settings
    real = loaded.recipe(loaded.recipe(evaluation.reference).images).settings
    return (
        prompts,
        real,
        loaded.recipe(evaluation.features).num_images,
        loaded.recipe(evaluation.reference).num_images,
    )


@pytest.mark.parametrize("name", STANDARDS)
def test_a_standard_is_what_its_name_says(name):
    prompts, real, drawn, of_real = sides(name)
    assert prompts["part"] == "val" and real["part"] == ("train" if name.endswith("-train") else "val")
    assert prompts["resolution"] == real["resolution"] == 256
    assert prompts["resize"] == real["resize"] == ("area" if name.endswith("area") else "bicubic")
    assert drawn == prompts["num_images"] == (5000 if "5k" in name else 30000)
    assert prompts["captions"] == name.split("-")[2]
    if name.endswith("-all"):
        assert of_real == real["num_images"] == 40504 and real["captions"] == "first"
    elif name.endswith("-train"):
        assert of_real == real["num_images"] == 82783 and real["captions"] == "first"
    else:
        assert real == prompts and of_real == drawn
    assert with_standard(name).protocols["coco-fid30k"].description == STANDARDS[name].description


def test_every_standard_has_results_of_its_own():
    paths = [with_standard(name).runs[0].evaluations[0].scores for name in STANDARDS]
    assert len(set(paths)) == len(STANDARDS)


def test_where_the_files_lie_changes_no_result():
    other = {"images": "/data/val2014", "annotations": "/data/annotations_trainval2014.zip"}
    assert with_standard("coco-30k-one", files=other).digest == with_standard("coco-30k-one").digest
    listed = {str(file.path): file.sha256 for file in external_files(with_standard("coco-30k-one"))}
    assert listed["data/coco/val2014.zip"] == coco.SHA256_OF["val2014.zip"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"standard": "coco-30k-on"}, "there is no 'coco-30k-on'; did you mean 'coco-30k-one'"),
        ({"standard": "coco-30k-one", "num_images": 10000}, "num_images: standard coco-30k-one says so already"),
        (
            {"standard": "coco-30k-one-train", "files": {"images": "a.zip", "annotations": "b.zip"}},
            "write train_images: COCO's train2014.zip",
        ),
        ({"prompts": "cc12m-held-out", "spectrum": True}, "description, reference, num_images, num_reference: missing"),
    ],
)
def test_what_a_protocol_cannot_be(entry, message):
    with pytest.raises(StudyError, match=message):
        study.load("paper", {"protocols.coco-fid30k": entry})


def test_two_protocols_share_a_data_set_of_the_same_rule():
    files = {"images": "a.zip", "annotations": "b.zip"}
    both = {
        f"protocols.{name[5:]}": {"standard": name, "files": files}
        for name in ("coco-30k-one-all", "coco-30k-drawn-all")
    }
    loaded = study.load("paper", both)
    real = {loaded.recipe(e.reference).images for e in loaded.runs[0].evaluations if e.protocol != "coco-fid30k"}
    assert len(real) == 1
    files_of_other = {"protocols.again": {"standard": "coco-30k-one", "files": files}}
    with pytest.raises(StudyError, match="names other files"):
        study.load("paper", files_of_other)


def test_the_description_says_the_rule(files):
    rule = coco.describe(settings(files, captions="one", seed=3, num_images=30000))
    assert rule == (
        "30000 pictures with one drawn caption of each, of COCO val2014 (seed 3), centre-cropped, lanczos to 32 px"
    )
    side = {"artifact": "x", "extractors": {"clip": {}}, "resolution": 32, "num_images": 30000, "index_sha256": "ab"}
    real = {**side, "images": "data/coco-1", "prompts": None, "rule": "all of them"}
    drawn = {**side, "images": "samples/s-1", "prompts": "data/coco-2", "rule": rule}
    found = Protocol.between(drawn, real)
    assert f"data/coco-2 [{rule}]" in found.describe() and "data/coco-1 [all of them]" in found.describe()
    assert found.as_json()["index_sha256"] == ("ab", "ab")
