"""Fetching from addresses, against a real server on this machine."""

import http.server
import io
import threading

import pytest
from PIL import Image
from test_shards import make_recipe

from mdm.config import StudyError
from mdm.data import sources
from mdm.data.reader import Pictures
from mdm.data.shards import index_data, read_index, write_manifest, write_shard
from mdm.data.sources import Picture
from mdm.manifest import ArtifactError, read_json, sha256_file


def jpeg(side):
    stream = io.BytesIO()
    Image.new("RGB", (side + 8, side), (200, 30, 30)).save(stream, format="JPEG")
    return stream.getvalue()


FILES = {"good": jpeg(40), "small": jpeg(10), "broken": b"not a picture"}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        content = FILES.get(self.path.strip("/").split("-")[0])
        self.send_response(404 if content is None else 200)
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def write_list(folder, base, names, header=True):
    path = folder / "list.tsv"
    lines = ["url\tcaption"] if header else []
    path.write_text("\n".join(lines + [f'{base}/{name}\tsaid "{name}"' for name in names]) + "\n")
    return {"index": str(path), "sha256": sha256_file(path), "num_images": len(names), "resolution": 32}


NAMES = [f"good-{k}" for k in range(12)] + ["gone-1", "gone-2", "broken-1", "small-1"]


@pytest.mark.slow
def test_a_shard_is_fetched_and_counted(server, tmp_path):
    path = make_recipe(tmp_path, "cc12m", shard_images=16, **write_list(tmp_path, server, NAMES), min_success=0.7)
    index_data(path)
    write_shard(path, 0)
    manifest = write_manifest(path)
    assert (manifest["fetched"], manifest["samples"]) == (16, 12)
    assert manifest["failures"]["HTTP Error 404: Not Found"] == 2 and sum(manifest["failures"].values()) == 4
    pictures = Pictures(path.parent)
    assert [pictures.caption(k) for k in range(12)] == [f'said "good-{k}"' for k in range(12)]
    assert pictures.image(3).shape == (32, 32, 3) and abs(int(pictures.image(3)[16, 16, 0]) - 200) < 8


def test_too_many_failures_are_an_error(tmp_path, monkeypatch):
    def poor(rows, settings):
        yield rows[0].key, Picture("jpg", FILES["good"])
        yield from ((row.key, "HTTP Error 404: Not Found") for row in rows[1:3])  # no word about the fourth

    monkeypatch.setattr("mdm.data.download.pictures", poor)
    path = make_recipe(tmp_path, "captioned-urls", **write_list(tmp_path, "http://localhost", NAMES[:4]))
    index_data(path)
    expected = r"only 1 of 4 pictures .* asks for 50% \(2 x HTTP Error 404: Not Found, 1 x no answer"
    with pytest.raises(ArtifactError, match=expected):
        write_shard(path, 0)
    assert not (path.parent / "shards/00000.tar").exists()


def test_the_list_itself_may_come_from_an_address(tmp_path):
    settings = write_list(tmp_path, "http://localhost", NAMES, header=False)
    settings["index"] = (tmp_path / "list.tsv").as_uri()
    path = make_recipe(tmp_path, "cc12m", columns=["url", "caption"], **settings)
    index_data(path)
    assert [row.columns["url"] for row in read_index(path.parent)][-1] == "http://localhost/small-1"


def test_parts_share_nothing_and_cover_all(tmp_path):
    names = [f"good-{k}" for k in range(200)]
    listed = write_list(tmp_path, "http://localhost", names)
    source = sources.find("cc12m", "here")
    parts = {}
    for part in ("train", "validation"):
        settings = source.Settings(**listed, part=part, validation_every=10)
        parts[part] = {row.columns["url"] for row in source.index(settings)}
    assert not parts["train"] & parts["validation"] and len(parts["train"] | parts["validation"]) == 200
    assert 8 <= len(parts["validation"]) <= 35


def test_bad_lists_are_refused(tmp_path):
    settings = write_list(tmp_path, "http://localhost", NAMES, header=False)
    with pytest.raises(ArtifactError, match="needs columns url and caption"):
        index_data(make_recipe(tmp_path, "cc12m", **settings))
    with pytest.raises(ArtifactError, match="it is another list"):
        index_data(make_recipe(tmp_path, "cc12m", **{**settings, "sha256": "0" * 64}))
    with pytest.raises(ArtifactError, match="num_images is 99"):
        index_data(make_recipe(tmp_path, "cc12m", columns=["url", "caption"], **{**settings, "num_images": 99}))
    with pytest.raises(StudyError, match="sha256"):
        sources.resolve("cc12m", {**settings, "sha256": "abc"}, "here")


def test_recipes_are_plain_json(tmp_path):
    path = make_recipe(tmp_path, "cc12m", **write_list(tmp_path, "http://localhost", NAMES))
    assert read_json(path)["settings"]["version"] == 1
