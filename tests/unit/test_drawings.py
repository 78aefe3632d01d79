"""Vector drawings of packages: made-up archives of the real shape, drawn, named, split by concept; then the real ones.

The made-up ones stand in the folder of packages under the real names, with their own hashes.
"""

import base64
import dataclasses
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from test_packages import add, deb, tgz

from mdm.config import StudyError
from mdm.data.fetch import packages
from mdm.data.shards.shard import index_data, read_index, write_manifest, write_shard
from mdm.data.sources import drawing_sets
from mdm.data.sources import registry as sources
from mdm.data.sources.drawing_concepts import Concept, Dictionary
from mdm.data.sources.drawing_sets import SETS
from mdm.data.sources.drawings import draw
from mdm.files.artifact import digest
from mdm.files.atomic import ArtifactError, write_json
from mdm.files.hashes import sha256_file

pytest.importorskip("resvg_py", reason="resvg_py of requirements.lock is not installed: run make setup")

SQUARE = '<path fill="{}" d="M8 8h16v16H8z"/>'
CHARACTERS = {
    "1f346": "eggplant", "1f3af": "bullseye", "1f408": "cat", "1f1f9-1f1ed": "flag-thailand",
    "1f468-200d-1f33e": "man-farmer", "1f468-1f3ff-200d-1f33e": "man-farmer-dark-skin-tone",
    "1f6a5": "horizontal-traffic-light",
}  # fmt: skip
REFERENCE = {"aliases": {"direct-hit": {"parent": "bullseye"}, "lost": {"parent": "gone"}}}


def names():
    return Dictionary(REFERENCE, CHARACTERS)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cat", "cat"), ("direct-hit", "bullseye"), ("aubergine", "eggplant"),
        ("horizontal-traffic-light", "horizontal traffic light"),
        ("man-farmer-dark", "man farmer, dark skin tone"), ("flag-thailand", "flag thailand"),
        ("manfarmer-light-skin-tone-medium-dark", "man farmer, light and medium-dark skin tone"),
    ],
)  # fmt: skip
def test_one_concept_under_all_its_names(name, words):
    assert names().concept(name).words == words


def test_what_the_dictionary_does_not_know_has_no_concept():
    assert names().concept("phoenix-bird") is None
    assert names().concept("lost") is None
    assert names().concept("dark-skin-tone") is None


def test_titles_meet_emoji_of_the_same_name():
    assert names().of_title("Cat") == "cat"
    assert names().of_title("cat (b and w)") == "cat"
    assert names().of_title("Thailand", is_flag=True) == "flag-thailand"
    assert names().of_title("Thailand") == "thailand"
    assert names().of_title("Busy mom") == "busymom"
    assert Concept("cat").words == "cat"


def test_a_drawing_fills_the_square_and_keeps_its_proportions():
    wide = draw(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 2"><path fill="#f00" d="M0 0h4v2H0z"/></svg>', 64
    )
    assert wide.shape == (64, 64, 3) and wide.dtype == np.uint8
    assert (wide[16:48] == (255, 0, 0)).all() and (wide[:15] == 255).all() and (wide[49:] == 255).all()


@pytest.mark.parametrize(("width", "height"), [(700, 701), (1, 1.004), (30, 1000), (255.9, 256.1)])
def test_odd_proportions_fit(width, height):
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><path d="M0 0h900v900z"/></svg>'
    for side in (32, 63, 64, 100):
        assert draw(svg, side).shape == (side, side, 3)


def test_drawings_are_drawn_and_not_enlarged():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><path fill="#000" d="M0 0L1 1H0z"/></svg>'
    large = draw(svg, 1024)
    edge = np.count_nonzero((large[..., 0] > 0) & (large[..., 0] < 255))
    assert edge <= 2 * 1024  # only the diagonal's own pixels are grey; an enlarged picture is grey around it


def test_a_size_in_points_is_a_size():
    assert draw(
        '<svg xmlns="http://www.w3.org/2000/svg" width="10pt" height="10pt"><path d="M0 0h9v9z"/></svg>', 32
    ).shape


@pytest.mark.parametrize(
    ("svg", "reason"),
    [
        ("no drawing", "broken drawing"),
        ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>', "blank drawing"),
    ],
)
def test_what_cannot_be_drawn_is_a_reason(svg, reason):
    assert draw(svg, 32) == reason


def icons(names_of_icons, **more):
    body = {name: {"body": SQUARE.format(f"#{hashlib.md5(name.encode()).hexdigest()[:6]}")} for name in names_of_icons}
    return json.dumps({"icons": body, "width": 32, "height": 32, **more}).encode()


def clip_art(path, files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as opened:
        for name, content in files.items():
            add(opened, f"./usr/share/openclipart/svg/{name}", content.encode())
    return deb(path, lambda entry: entry("data.tar.xz", stream.getvalue()))


def clip(title, colour="red", extra="", keywords=("hash", "", "food")):
    items = "".join(f"<rdf:li>{word}</rdf:li>" for word in keywords)
    return (
        f'<svg viewBox="0 0 9 9" xmlns:dc="d" xmlns:rdf="r"><dc:title>{title}</dc:title><rdf:Bag>{items}</rdf:Bag>'
        f'<path fill="{colour}" d="M1 1h5v5z"/>{extra}</svg>'
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of small packages that carry the names of the real ones."""
    emoji = {
        "noto": ["eggplant", "bullseye", "cat", "man-farmer", "man-farmer-dark-skin-tone"],
        "fluent-emoji": ["cat", "direct-hit", "man-farmer-dark", "phoenix-bird"],
        "fxemoji": ["aubergine", "cat", "smileyfloppy"],
    }
    made = {}
    for name, found in emoji.items():
        path = tgz(tmp_path / SETS[name].package.file, **{
            "package/icons.json": icons(found, **(REFERENCE if name == "noto" else {})),
            "package/chars.json": json.dumps(CHARACTERS if name == "noto" else {}).encode(),
        })  # fmt: skip
        made[name] = "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    path = clip_art(tmp_path / SETS["openclipart"].package.file, {
        "food/pear_02.svg": clip("Pear 02"), "food/pear_again.svg": clip("Pear 02"),
        "animals/cat.svg": clip("Cat", "blue"),
        "food/words.svg": clip("Words", "green", "<text>Fonts</text>"), "logos/x.svg": clip("Logo", "pink"),
        "food/photo.svg": clip("Photo", "green", '<image href="/etc/hostname"/>'), "food/odd.svg": clip("", "grey"),
        **{f"food/theme{k}.svg": clip("Various Cliparts", f"#{k:06x}") for k in range(40)},
    })  # fmt: skip
    made["openclipart"] = sha256_file(path)
    for name, published in made.items():
        package = dataclasses.replace(SETS[name].package, published=published)
        monkeypatch.setitem(drawing_sets.SETS, name, dataclasses.replace(SETS[name], package=package))
    return tmp_path


ALL = ("noto", "fluent-emoji", "fxemoji", "openclipart")


def settings(folder, **more):
    return sources.find("drawings", "test").Settings(
        **{"sets": ALL, "num_images": 100, "resolution": 32, "packages": str(folder), **more}
    )


def rows(folder, **more):
    return list(sources.find("drawings", "test").index(settings(folder, **more)))


def test_captions_come_from_names_titles_and_keywords(folder):
    captions = {row.caption for row in rows(folder)}
    assert captions == {
        "a Noto emoji of eggplant", "a Noto emoji of bullseye", "a Noto emoji of cat", "a Noto emoji of man farmer",
        "a Noto emoji of man farmer, dark skin tone", "a glossy emoji of cat", "a glossy emoji of bullseye",
        "a glossy emoji of man farmer, dark skin tone", "a Firefox emoji of eggplant", "a Firefox emoji of cat",
        "a clip art drawing of pear, food", "a clip art drawing of cat, food",
    }  # fmt: skip
    assert {row.columns["licence"] for row in rows(folder)} == {"Apache-2.0", "MIT", "public domain dedication"}
    assert not any("skin tone" in row.caption for row in rows(folder, skin_tones=False))


def test_drawings_have_factors_of_memorisation(folder):
    """The true class is the set; smaller sets lie in larger ones; copies are drawn like their originals."""
    whole = rows(folder, label="class")
    assert all(ALL.index(row.columns["set"]) == row.labels["class"] for row in whole)
    assert rows(folder, label="class", num_images=5) == whole[:5]
    planted = settings(folder, num_images=5, copies={"count": 3, "of": 2}, label="unique")
    source = sources.find("drawings", "test")
    found = list(source.index(planted))
    assert [row.labels["class"] for row in found] == [0, 1, 2, 3, 4, 0, 1, 0, 1]
    drawn = dict(source.pictures(found, planted))
    assert len(drawn) == 9 and drawn[found[5].key].data == drawn[found[0].key].data != drawn[found[1].key].data
    assert (source.label_count(planted), source.label_count(settings(folder, label="class"))) == (5, 4)


def test_a_concept_lies_on_one_side_whatever_sets_are_taken(folder):
    for sets in (ALL, ("fluent-emoji", "openclipart"), ("noto",)):
        for every in (2, 3, 5):
            sides = {
                part: rows(folder, sets=sets, part=part, validation_every=every)
                for part in ("train", "validation", "all")
            }
            train, validation = ({row.columns["concept"] for row in sides[part]} for part in ("train", "validation"))
            assert not train & validation
            assert len(sides["train"]) + len(sides["validation"]) == len(sides["all"])
    halves = [
        {row.columns["concept"] for row in rows(folder, sets=(name,), part="validation", validation_every=2)}
        for name in ("noto", "fluent-emoji")
    ]
    assert ("cat" in halves[0]) == ("cat" in halves[1]) and ("bullseye" in halves[0]) == ("bullseye" in halves[1])


def test_fewer_drawings_are_the_first_of_more(folder):
    everything, some = rows(folder), rows(folder, num_images=5)
    assert [row.caption for row in some] == [row.caption for row in everything][:5]
    assert [row.key for row in some] == [f"{k:08d}" for k in range(5)]


def recipe(folder, count, results="results", **more):
    given = {"sets": list(ALL), "num_images": count, "resolution": 32, **more}
    place = folder / results / "data"
    entry = {
        "kind": "data",
        "source": "drawings",
        "shard_images": 5,
        "settings": sources.resolve("drawings", given, "t"),
    }
    path = place / f"drawings-{digest(entry)}" / "recipe.json"
    path.parent.mkdir(parents=True)
    write_json(path, entry)
    write_json(path.with_name("handling.json"), {"packages": str(folder), "min_success": 1.0})
    return path


def test_shards_are_the_same_bytes_every_time(folder):
    made = []
    for results in ("one", "two"):
        path = recipe(folder, 12, results)
        index_data(path)
        for shard in range(3):
            write_shard(path, shard)
        made.append(write_manifest(path))
    assert made[0]["digest"] == made[1]["digest"] and made[0]["samples"] == 12
    assert made[0]["licences"] == {"Apache-2.0": 7, "MIT": 3, "public domain dedication": 2}


def test_every_picture_shows_its_own_drawing(folder):
    path = recipe(folder, 12)
    index_data(path)
    write_shard(path, 0)
    with tarfile.open(path.parent / "shards" / "00000.tar") as opened:
        for row in read_index(path.parent, 0, 5):
            picture = np.asarray(Image.open(opened.extractfile(f"{row.key}.png")))
            if row.columns["set"] != "openclipart":
                colour = hashlib.md5(row.columns["name"].encode()).hexdigest()[:6]
                assert bytes(picture[16, 16]).hex() == colour


def test_more_drawings_than_there_are_is_an_error_that_counts(folder):
    path = recipe(folder, 13)
    with pytest.raises(ArtifactError, match="num_images is 13, but the source 'drawings' has 12 pictures"):
        index_data(path)


def test_the_folder_of_packages_is_no_part_of_the_recipe(folder):
    given = {"num_images": 5, "resolution": 32}
    one, two = (sources.resolve("drawings", {**given, "packages": where}, "t") for where in ("a", "b"))
    assert one == two
    assert sources.handling("drawings", {**given, "packages": "b"}, "t")["packages"] == "b"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sets": ["notto"]}, "did you mean 'noto'"),
        ({"sets": ["noto", "noto"]}, "stands twice"),
        ({"resolution": 2048}, "1024"),
    ],
)
def test_settings_that_cannot_be(given, message):
    with pytest.raises(StudyError, match=message):
        sources.resolve("drawings", {"num_images": 5, "resolution": 32, **given}, "study")


@pytest.mark.parametrize("name", ["noto", pytest.param("openclipart", marks=pytest.mark.slow)])
def test_the_real_packages_where_they_can_be_fetched(name, tmp_path):
    """One emoji set by npm, the clip art by apt-get: counts are those of the pinned versions."""
    folder = tmp_path / "packages"
    try:
        for needed in ("noto", name):
            packages.archive(SETS[needed].package, folder)
    except ArtifactError as error:
        pytest.skip(f"the package cannot be fetched here: {error}")
    found = rows(folder, sets=(name,), num_images=10**6)
    assert len(found) == {"noto": 3599, "openclipart": 3142}[name]
    settings_here = settings(folder, sets=(name,), resolution=64)
    made = dict(sources.find("drawings", "test").pictures(found[:20], settings_here))
    assert len(made) == 20 and sum(isinstance(picture, str) for picture in made.values()) <= 1
