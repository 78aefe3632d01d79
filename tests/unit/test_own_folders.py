"""A user's own folder of pictures or films: odd names, odd tables, damaged files, and changes after it was indexed."""

import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from test_shards import make_data, make_recipe

from mdm.config import StudyError
from mdm.data.batches.reader import Pictures
from mdm.data.shards.own_changes import problem
from mdm.data.shards.shard import index_data, read_index, write_manifest, write_shard
from mdm.data.sources import registry as sources
from mdm.files.atomic import ArtifactError, read_json
from mdm.files.hashes import sha256_file

ODD_NAMES = (
    "two  blanks.png",
    "Screenshot 3.00\u202fPM.png",
    "tab\there.png",
    "line\nbreak.png",
    "back\\slash.png",
    'qu"ote.png',
)


def picture(path, colour="red", size=(40, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def folder_with(root, *names):
    for name in names:
        picture(root / name)
    return root


def test_file_names_are_kept_to_the_letter(tmp_path):
    folder = folder_with(tmp_path / "mine", *ODD_NAMES)
    for name in ODD_NAMES:
        (folder / name).with_suffix(".txt").write_text(name)
    path = make_data(tmp_path, source="folder", path=str(folder), num_images=len(ODD_NAMES))
    assert sorted(row.columns["file"] for row in read_index(path.parent)) == sorted(ODD_NAMES)
    assert Pictures(path.parent).caption(0) in {" ".join(name.split()) for name in ODD_NAMES}


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_tables_as_spreadsheets_write_them(tmp_path, ending):
    folder = folder_with(tmp_path / "mine", "a.png", "b.png")
    lines = ["file,caption", 'a.png,"blue, and ""bold"""', "b.png,grün", ""]
    (folder / "captions.csv").write_bytes(b"\xef\xbb\xbf" + ending.join(lines).encode())
    path = make_data(tmp_path, source="folder", path=str(folder), num_images=2, captions="captions.csv")
    assert [Pictures(path.parent).caption(k) for k in range(2)] == ['blue, and "bold"', "grün"]


def test_other_names_of_the_columns(tmp_path):
    """As the image folders of Hugging Face's datasets have them."""
    folder = folder_with(tmp_path / "mine", "train/a.png")
    (folder / "metadata.csv").write_text("file_name,text\ntrain/a.png,one\n")
    settings = {"source": "folder", "path": str(folder), "num_images": 1, "captions": "metadata.csv"}
    with pytest.raises(ArtifactError, match="did you mean 'file_name'"):
        make_data(tmp_path, **settings)
    path = make_data(tmp_path, file_column="file_name", caption_column="text", **settings)
    assert Pictures(path.parent).caption(0) == "one"


def test_a_path_in_somebodys_home_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"a study has no home; write /\S+/mine"):
        make_recipe(tmp_path, source="folder", path="~/mine", num_images=1, resolution=8)


def test_a_table_as_pandas_writes_it(tmp_path):
    folder = folder_with(tmp_path / "mine", "a.png")
    (folder / "captions.csv").write_text(",file,caption\n0,a.png,one\n")
    path = make_data(tmp_path, source="folder", path=str(folder), num_images=1, captions="captions.csv")
    assert Pictures(path.parent).caption(0) == "one"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"file,caption\na.png\n", r"line 2 .*no caption"),
        (b"file,caption\na.png,one,more\n", r"line 2 has more columns"),
        (b"file,caption\na.png,one\na.png,two\n", r"line 3 names a\.png again"),
        (b"file,caption\n/etc/a.png,one\n", r"/etc/a\.png.* leads out of"),
        (b"file,caption\n../a.png,one\n", r"leads out of"),
        (b"file,caption\na.png,gr\xfcn\n", r"not UTF-8"),
        (b'file,caption\na.png,"one\nb.png,two\n' + b"x" * 200_000, r"quote"),
        (b"picture,caption\na.png,one\n", r"columns file and caption"),
        (b"", r"columns file and caption"),
        (b"file,caption\n", r"no picture"),
        ("file,caption,class\na.png,one,²\n".encode(), r"class '²' of a\.png is not a number"),
    ],
)
def test_tables_that_do_not_fit_say_where(tmp_path, table, message):
    folder = folder_with(tmp_path / "mine", "a.png", "b.png")
    (folder / "captions.csv").write_bytes(table)
    with pytest.raises(ArtifactError, match=message):
        make_data(tmp_path, source="folder", path=str(folder), num_images=1, captions="captions.csv")


def test_tables_of_films_are_read_alike(tmp_path):
    folder = folder_with(tmp_path / "films", "a.png")
    settings = {"source": "clip-folder", "path": str(folder), "num_images": 1, "captions": "t.csv", "frames": 4}
    for table, message in ((b"file,caption\na.png\n", "no caption"), (b"file,caption\n../a.png,x\n", "leads out of")):
        (folder / "t.csv").write_bytes(table)
        with pytest.raises(ArtifactError, match=message):
            make_data(tmp_path, **settings)
    (folder / "t.csv").write_bytes(b"\xef\xbb\xbffile,caption\na.png,x\n")
    index_data(make_recipe(tmp_path, resolution=16, **settings))


def test_an_empty_folder_and_captions_of_other_encodings(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(ArtifactError, match=r"no picture .*\.png"):
        make_data(tmp_path, source="folder", path=str(folder), num_images=1)
    picture(folder / "a.png")
    (folder / "a.txt").write_bytes("grün".encode("latin-1"))
    with pytest.raises(ArtifactError, match=r"a\.txt .*not UTF-8"):
        make_data(tmp_path, source="folder", path=str(folder), num_images=1)


def test_hidden_files_are_no_pictures(tmp_path):
    folder = folder_with(tmp_path / "mine", "a.png")
    (folder / "a.txt").write_text("one")
    (folder / "._a.png").write_bytes(b"what a Mac leaves beside")
    assert read_json(make_data(tmp_path, source="folder", path=str(folder), num_images=1).with_name("manifest.json"))


def test_bad_files_are_named_and_may_be_few(tmp_path):
    folder = folder_with(tmp_path / "mine", *(f"{k}.png" for k in range(10)))
    for k in range(10):
        (folder / f"{k}.txt").write_text(f"number {k}")
    (folder / "3.png").write_bytes(b"")
    settings = {"source": "folder", "path": str(folder), "num_images": 10}
    with pytest.raises(ArtifactError, match=r"only 7 of 8 .*3\.png \(not a picture\)"):
        make_data(tmp_path, **settings)
    path = make_data(tmp_path, min_success=0.5, **settings)
    assert read_json(path.with_name("manifest.json"))["failures"] == {"not a picture": 1}
    assert "min_success" not in read_json(path)["settings"]


def test_the_licence_of_own_files_stands_in_the_manifest(tmp_path):
    folder = folder_with(tmp_path / "mine", "a.png")
    (folder / "a.txt").write_text("one")
    settings = {"source": "folder", "path": str(folder), "num_images": 1}
    for said, shown in (({}, "as the folder's owner says"), ({"licence": "CC0-1.0"}, "CC0-1.0")):
        path = make_data(tmp_path, **settings, **said)
        manifest = read_json(path.with_name("manifest.json"))
        assert (manifest["licence"], manifest["licences"]) == (shown, {shown: 1})


def test_a_file_that_vanished_is_named(tmp_path):
    folder = folder_with(tmp_path / "mine", "a.png")
    (folder / "a.txt").write_text("one")
    path = make_recipe(tmp_path, source="folder", path=str(folder), num_images=1, resolution=16)
    index_data(path)
    (folder / "a.png").unlink()
    with pytest.raises(ArtifactError, match=r"a\.png .*(gone|No such file)"):
        write_shard(path, 0)


def test_a_manifest_of_shards_from_another_index_is_refused(tmp_path):
    folder = folder_with(tmp_path / "mine", "a.png")
    (folder / "a.txt").write_text("one")
    path = make_data(tmp_path, source="folder", path=str(folder), num_images=1)
    (folder / "a.txt").write_text("another")
    index_data(path)
    with pytest.raises(ArtifactError, match=r"00000\.tar was made from another index"):
        write_manifest(path)
    write_shard(path, 0)
    assert write_manifest(path)["samples"] == 1


def test_neutral_settings_are_in_no_digest():
    plain = sources.resolve("folder", {"path": "x", "num_images": 1, "resolution": 16}, "here")
    assert not {"filters", "revision", "min_success"} & plain.keys()
    said = sources.resolve("folder", {"path": "x", "num_images": 1, "resolution": 16, "revision": 2}, "here")
    assert said == {**plain, "revision": 2}


def test_rows_are_filtered_by_their_columns(tmp_path):
    folder = folder_with(tmp_path / "mine", "a.png", "b.png", "c.png", "d.png")
    (folder / "t.csv").write_text(
        "file,caption,score,tag\na.png,a,0.31,ok\nb.png,b,0.2,ok\nc.png,c,0.4,NSFW\nd.png,d,,ok\n"
    )
    wanted = [{"column": "score", "least": 0.28}, {"column": "tag", "among": ["ok"]}]
    settings = {"source": "folder", "path": str(folder), "captions": "t.csv", "num_images": 1}
    path = make_data(tmp_path, filters=wanted, **settings)
    assert [row.caption for row in read_index(path.parent)] == ["a"]
    with pytest.raises(ArtifactError, match=r"no column 'scores'.*did you mean 'score'"):
        make_data(tmp_path, filters=[{"column": "scores", "least": 0.28}], **settings)
    with pytest.raises(StudyError, match="least, most or among"):
        make_recipe(tmp_path, filters=[{"column": "score"}], resolution=16, **settings)
    with pytest.raises(StudyError, match=r"filters .* captions"):
        make_recipe(tmp_path, filters=wanted, resolution=16, **{**settings, "captions": None})


def test_a_folder_is_split_by_names(tmp_path):
    names = [f"{k:03d}.png" for k in range(60)]
    folder = folder_with(tmp_path / "mine", *names)
    (folder / "t.csv").write_text("file,caption\n" + "".join(f"{name},{name}\n" for name in names))
    source, settings = sources.find("folder", "here"), {"path": str(folder), "captions": "t.csv", "resolution": 16}
    parts = [
        set(source.listed(source.Settings(**settings, num_images=1, part=part, validation_every=5)))
        for part in ("train", "validation")
    ]
    assert not parts[0] & parts[1] and parts[0] | parts[1] == set(names) and 4 < len(parts[1]) < 25
    with pytest.raises(StudyError, match="validation_every has no effect"):
        make_recipe(tmp_path, source="folder", num_images=1, validation_every=5, **settings)


def test_captions_do_not_depend_on_the_locale(tmp_path):
    """Nothing that is read or written leaves its encoding to the machine."""
    folder = folder_with(tmp_path / "mine", "a.png")
    (folder / "t.csv").write_bytes("file,caption\na.png,grün\n".encode())
    path = make_recipe(tmp_path, source="folder", path=str(folder), num_images=1, resolution=16, captions="t.csv")
    strict = [sys.executable, "-X", "warn_default_encoding", "-W", "error::EncodingWarning", "-m", "mdm"]
    for words in (["index"], ["shard", "--shard", "0"], ["manifest"]):
        done = subprocess.run([*strict, words[0], str(path), *words[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert Pictures(path.parent).caption(0) == "grün"


def test_same_bytes_whatever_the_machine_says(tmp_path):
    """Not the seed of hashes, the time zone, the language, the rights of new files or the order on disk."""
    folder = tmp_path / "mine"
    made = []
    for k, (environment, names) in enumerate((({"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C"}, "abcdef"),
                                              ({"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo"}, "fbdeca"))):  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)
        for name in names:
            picture(folder / f"{name}.png", (40 * ord(name) % 256, 9, 9), (40, 50))
            (folder / f"{name}.txt").write_text(f"say {name} ü", encoding="utf-8")
        path = make_recipe(tmp_path / str(k), "folder", 4, path=str(folder), num_images=6, resolution=32)
        for words in (["index", str(path)], ["shard", str(path), "--shard", "0-1"], ["manifest", str(path)]):
            done = subprocess.run(
                [sys.executable, "-m", "mdm", *words], env={**os.environ, **environment}, umask=0o077 * k, check=False,
                capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        files = [*sorted((path.parent / "shards").iterdir()), path.with_name("index.tsv")]
        made.append({file.name: file.read_bytes() for file in files})
    assert made[0] == made[1] and len(made[0]) == 5


def test_labels_by_place_are_no_change_of_the_table(tmp_path):
    folder = folder_with(tmp_path / "mine", "a.png", "b.png", "c.png")
    (folder / "captions.csv").write_text("file,caption,class\na.png,one,7\nb.png,two,7\nc.png,three,8\n")
    asked = {"path": str(folder), "num_images": 3, "captions": "captions.csv", "resolution": 16}
    seen = {}
    for label in ("class", "unique"):
        path = make_data(tmp_path / label, source="folder", label=label, **asked)
        seen[label] = [Pictures(path.parent).labels(number)["class"] for number in range(3)]
        source, settings = sources.reopen(sources.job(path).recipe, str(path), sources.job(path).handling)
        (folder / "captions.csv").touch()  # so that the table is read again
        assert problem(path.parent, source, settings, sha256_file) is None
        assert source.label_count(settings) == (3 if label == "unique" else None)
    assert seen == {"class": [7, 7, 8], "unique": [0, 1, 2]}


def test_a_mixture_needs_the_files_of_its_parts(tmp_path):
    folder = folder_with(tmp_path / "mine", "a.png", "b.png")
    (folder / "captions.csv").write_text("file,caption\na.png,one\nb.png,two\n")
    parts = [{"source": "scenes"}, {"source": "folder", "settings": {
        "path": str(folder), "num_images": 2, "captions": "captions.csv"}}]  # fmt: skip
    path = make_data(tmp_path, source="mixture", num_images=4, share=0.5, resolution=16, parts=parts)
    pictures = Pictures(path.parent)
    assert [pictures.caption(number) for number in (2, 3)] == ["one", "two"]
    shutil.rmtree(folder)
    with pytest.raises(ArtifactError, match="there is no folder"):
        index_data(path)
