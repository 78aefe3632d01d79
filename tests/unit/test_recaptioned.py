"""CC12M with a model's captions: short, long or mixed, from the public list's JSON lines or from a table."""

import gzip
import json

import pytest
from picture_server import serving
from test_download import QUICK
from test_shards import make_recipe

from mdm.config import StudyError
from mdm.data.batches.reader import Pictures
from mdm.data.shards.shard import index_data, read_index, write_manifest, write_shard
from mdm.data.sources import recaptioned
from mdm.data.sources import registry as sources
from mdm.files.atomic import ArtifactError, read_json
from mdm.files.hashes import sha256_file
from mdm.study import study

SOURCE = "cc12m-recaptioned"
LINES = [
    {
        "url": f"http://127.0.0.1:9/good-{k}", "key": f"{k:09d}", "caption": f"alt {k}", "width": 640,
        "caption_llava_short": f"A \"short\"\n one, {k}.", "caption_llava": f"A long one, {k}.\n\nAnd\ta second one.",
    }
    for k in range(400)
]  # fmt: skip


def write(path, lines=LINES):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    with gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w") as stream:
        stream.write(text)
    return {"index": str(path), "sha256": sha256_file(path), "num_images": len(lines), "resolution": 32}


def captions(path, **settings):
    return [row.caption for row in recaptioned.index(recaptioned.Settings(**{**write(path), **settings}))]


def test_short_and_long_captions_of_json_lines(tmp_path):
    path = tmp_path / "train.jsonl.gz"
    assert captions(path)[:2] == ['A "short" one, 0.', 'A "short" one, 1.']
    assert captions(path, captions="long")[399] == "A long one, 399. And a second one."
    assert captions(path, num_images=3, captions="long") == captions(path, captions="long")[:3]
    assert captions(tmp_path / "plain.jsonl") == captions(path)
    rows = list(recaptioned.index(recaptioned.Settings(**write(path))))
    assert (rows[7].key, rows[7].columns) == ("000000007", {"url": LINES[7]["url"]})


def test_mixed_captions_are_told_by_the_address(tmp_path):
    path = tmp_path / "train.jsonl"
    short, long = captions(path), captions(path, captions="long")
    before: set[int] = set()
    for share in (0.0, 0.25, 0.75, 1.0):
        mixed = captions(path, captions="mixed", long_share=share)
        taken = {k for k in range(400) if mixed[k] == long[k]}
        assert all(mixed[k] == short[k] for k in range(400) if k not in taken)
        assert abs(len(taken) / 400 - share) < 0.07 and before <= taken
        before = taken
    backwards = write(path, LINES[::-1])
    settings = recaptioned.Settings(**backwards, captions="mixed", long_share=0.25)
    again = [row.caption for row in recaptioned.index(settings)]
    assert again[::-1] == captions(path, captions="mixed", long_share=0.25)


def test_halves_of_characters_are_replaced(tmp_path):
    line = {**LINES[0], "url": LINES[0]["url"] + "\ud83d", "caption_llava_short": "A cat \ud83d."}
    rows = list(recaptioned.index(recaptioned.Settings(**write(tmp_path / "train.jsonl", [line]), part="train")))
    assert [(row.caption, row.columns["url"][-1]) for row in rows] == [("A cat ?.", "?")]


def test_parts_and_filters_work_as_of_any_list(tmp_path):
    path = tmp_path / "train.jsonl"
    parts = [set(captions(path, part=part, validation_every=10, num_images=400)) for part in ("train", "validation")]
    assert not parts[0] & parts[1] and parts[0] | parts[1] == set(captions(path)) and len(parts[1]) > 10
    assert captions(path, filters=[{"column": "width", "least": 641}]) == []
    with pytest.raises(ArtifactError, match="no column 'with' to filter by; did you mean 'width'"):
        captions(path, filters=[{"column": "with", "least": 641}])


def test_a_table_is_read_too(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('url,brief,detailed\nhttp://a/1,one,"one, and more"\nhttp://a/2,two,\n')
    listed = {"index": str(path), "sha256": sha256_file(path), "num_images": 2, "resolution": 8}
    settings = recaptioned.Settings(**listed, captions="long", short_column="brief", long_column="detailed")
    assert [row.caption for row in recaptioned.index(settings)] == ["one, and more", ""]


def test_pictures_are_fetched_with_the_captions_asked_for(tmp_path):
    with serving() as server:
        lines = [{**LINES[k], "url": f"{server.base}/good-{k}"} for k in range(4)]
        listed = write(tmp_path / "train.jsonl.gz", lines)
        path = make_recipe(tmp_path, SOURCE, 4, **listed, **QUICK, captions="long")
        index_data(path)
        write_shard(path, 0)
    manifest = write_manifest(path)
    assert manifest["samples"] == 4 and "captions have that of their list" in json.dumps(manifest["licences"])
    assert Pictures(path.parent).caption(2) == "A long one, 2. And a second one."
    assert len(read_index(path.parent)) == 4 and "index" not in read_json(path)["settings"]
    assert sources.rule(path) == "the long caption of each picture"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"captions": "mixed"}, "captions mixed needs long_share, as in long_share: 0.5"),
        ({"captions": "long", "long_share": 0.5}, "long_share 0.5 has no effect on long captions; write"),
        ({"captions": "mixed", "long_share": 1.5}, "long_share: .*less than or equal to 1"),
        ({"captions": "detailed"}, "'short', 'long' or 'mixed'"),
        ({"columns": ["url", "a", "b"]}, "columns has no effect on JSON lines"),
        ({"long_column": "caption_llava_short"}, "are both caption_llava_short; write two"),
        ({"caption_column": "text"}, "caption_column has no effect here; write short_column or long_column"),
    ],
)  # fmt: skip
def test_settings_without_meaning_are_refused(settings, message):
    listed = {"index": "list.jsonl.gz", "sha256": None, "num_images": 4, "resolution": 8}
    with pytest.raises(StudyError, match=message):
        sources.resolve(SOURCE, {**listed, **settings}, "here")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"url": "http://a", "caption_llava": "x"}\n', "line 1 has no column 'caption_llava_short'; did you mean"),
        (b'{"url": "http://a", "caption_llava": 3, "caption_llava_short": ""}\n', "line 1: caption_llava is no text"),
        (b"[1]\n", "line 1 is no JSON object with columns url, caption_llava_short, caption_llava"),
        (b"{\n", "line 1 is no JSON .*fetch it again"),
        (b"[" * 100_000 + b"\n", "line 1 is no JSON"),
        (b"\xff\xfe\n", "damaged after line"),
        (b'"' + b"a" * 2**20 + b'"\n', "line 1 has more than 1,048,576 characters"),
    ],
)
def test_lists_that_are_none_are_refused(tmp_path, content, message):
    for name, data in (("list.jsonl", content), ("list.jsonl.gz", gzip.compress(content))):
        path = tmp_path / name
        path.write_bytes(data)
        settings = recaptioned.Settings(index=str(path), sha256=sha256_file(path), num_images=1, resolution=8)
        with pytest.raises(ArtifactError, match=message):
            list(recaptioned.index(settings))
    path.write_bytes(gzip.compress(json.dumps(LINES[0]).encode() * 9)[:-12])
    settings = recaptioned.Settings(index=str(path), sha256=sha256_file(path), num_images=1, resolution=8)
    with pytest.raises(ArtifactError, match=r"damaged after line|is no JSON"):
        list(recaptioned.index(settings))


def test_the_paper_study_compares_short_with_long_captions():
    paper = study.load("paper")
    runs = {run.value: run for run in paper.runs if run.ablation == "long-captions"}
    assert list(runs) == ["short", "long", "mixed"]
    data = {name: paper.recipe(paper.recipe(run.stages[-1].artifact).data) for name, run in runs.items()}
    assert {name: found.settings["captions"] for name, found in data.items()} == {name: name for name in runs}
    encoders = {paper.recipe(paper.recipe(run.stages[-1].artifact).text).encoder.settings.max_tokens
                for run in runs.values()}  # fmt: skip
    assert encoders == {256} and all(run.evaluations[0].protocol == "coco-fid30k" for run in runs.values())
