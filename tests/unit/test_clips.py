"""Films become strips of frames: which ones, how they look, what is refused, and how they are read again."""

import io

import numpy as np
import pytest
from picture_server import serving
from PIL import Image
from repository import HANG_SECONDS
from test_shards import make_data, make_recipe

from mdm.config import StudyError
from mdm.data.batches.loader import Loader, signal
from mdm.data.batches.reader import Pictures
from mdm.data.pictures.clip_frames import picked
from mdm.data.pictures.clips import ClipSettings, clip, prepare_clip
from mdm.data.shards.shard import index_data, write_manifest, write_shard
from mdm.data.sources import registry as sources
from mdm.files.atomic import ArtifactError
from mdm.files.hashes import sha256_file

SIDE, FRAMES = 32, 24


def drawings(colour=(220, 40, 30), frames=FRAMES, width=48, height=SIDE):
    """A bright bar that moves to the right over grey, one frame after the other."""
    film = np.full((frames, height, width, 3), 90, dtype=np.uint8)
    for number, frame in enumerate(film):
        frame[:, 8 + number : 16 + number] = colour
    return film


def animated(film, format="WEBP", milliseconds=100, **options):
    stream, first, *rest = io.BytesIO(), *[Image.fromarray(frame) for frame in film]
    first.save(stream, format=format, save_all=True, append_images=rest, duration=milliseconds, **options)
    return stream.getvalue()


def encoded(film, folder, name="film.mp4", code="mp4v", rate=10):
    """A container written by OpenCV."""
    import cv2

    path = folder / name
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), rate, (film.shape[2], film.shape[1]))
    for frame in film:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path.read_bytes()


def settings(**more):
    return ClipSettings(**{"resolution": SIDE, "frames": 4, **more})


def test_frames_are_picked_by_their_times():
    even = [k / 10 for k in range(25)]  # 24 frames of a tenth of a second
    assert picked(even, 4, None) == [3, 9, 15, 21]
    assert picked(even, 4, 10.0) == [10, 11, 12, 13]
    assert picked(even, 4, 2.0) == [4, 9, 14, 19]
    assert picked(even, 4, 1.0) == "too short" and picked(even[:4], 4, None) == "too short"
    assert picked(even, 4, 100.0) == "too short", "fewer different frames than asked for"
    uneven = [0.0, 1.0, 1.1, 1.2, 1.3, 4.0]  # a frame stays until the next one comes
    assert picked(uneven, 2, None) == [1, 4] and picked(uneven, 3, None) == "too short"
    assert picked([k / 1000 for k in range(30_000)], 4, None) == "too long"


@pytest.mark.parametrize("kind", ["webp", "gif", "png", "mp4", "avi"])
def test_every_container_shows_the_same_film(tmp_path, kind):
    film = drawings()
    if kind in ("mp4", "avi"):
        data = encoded(film, tmp_path, f"film.{kind}", {"mp4": "mp4v", "avi": "MJPG"}[kind])
    else:
        data = animated(film, kind.upper(), **({"lossless": True} if kind == "webp" else {}))
    found = clip(data, settings())
    expected = film[[3, 9, 15, 21], :, 8:40]  # the square in the middle
    assert found.shape == (4, SIDE, SIDE, 3)
    error = np.abs(found.astype(int) - expected).mean()
    assert error < {"webp": 0.01, "png": 0.01, "gif": 3}.get(kind, 12)
    assert prepare_clip(data, settings()) == prepare_clip(data, settings())


def test_transparent_parts_are_white_and_sizes_are_reduced():
    layers = [Image.new("RGBA", (64, 64), (0, 0, 0, 0)) for _ in range(4)]
    for number, layer in enumerate(layers):
        layer.paste((0, 200, 0, 255), (16 * number, 0, 16 * number + 16, 64))
    stream = io.BytesIO()
    layers[0].save(stream, format="PNG", save_all=True, append_images=layers[1:], duration=50, disposal=1)
    found = clip(stream.getvalue(), settings(resize="area"))
    for number, frame in enumerate(found):
        assert (frame[:, 8 * number : 8 * number + 8] == (0, 200, 0)).all()
        assert (np.delete(frame, np.s_[8 * number : 8 * number + 8], axis=1) == 255).all()


def test_what_gives_no_clip(tmp_path):
    film = encoded(drawings(), tmp_path)
    assert prepare_clip(b"", settings()) == "not a clip"
    assert prepare_clip(b"#EXTM3U\n#EXTINF:1,\nhttp://10.0.0.1/secret.ts\n", settings()) == "not a clip"
    assert prepare_clip(b"ffconcat version 1.0\nfile /etc/passwd\n", settings()) == "not a clip"
    assert prepare_clip(film[: len(film) // 3], settings()) == "broken picture"
    assert prepare_clip(b"\x1aE\xdf\xa3" + bytes(500), settings()) == "broken picture"
    assert prepare_clip(animated(drawings())[:300], settings()) in ("broken picture", "too short")
    assert prepare_clip(film, settings(resolution=64)) == "too small"
    assert prepare_clip(film, settings(max_pixels=1000)) == "too many pixels"
    assert prepare_clip(film, settings(max_aspect=1.2)) == "too elongated"
    assert prepare_clip(film, settings(frames_per_second=0.5)) == "too short"
    still = io.BytesIO()
    Image.new("RGB", (64, 64)).save(still, format="PNG")
    assert prepare_clip(still.getvalue(), settings()) == "too short"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stored": "jpg", "resolution": 24}, "share blocks"),
        ({"stored": "jpg", "resolution": 1024, "frames": 64}, "longer than a JPEG can be"),
        ({"crop": "none"}, "crop"),
        ({"decode": "dct"}, "decode"),
        ({"frames": 1}, "frames"),
    ],
)
def test_settings_that_do_not_fit_clips_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        settings(**wrong)


def films(folder, count=6):
    """A folder of films with WebVid's table."""
    (folder / "pages").mkdir(parents=True)
    lines = ["videoid,contentUrl,duration,page_dir,name"]
    for k in range(count):
        film = animated(drawings((40 * k, 200, 60)), lossless=True)
        (folder / f"pages/{k}.webp").write_bytes(film)
        lines.append(f'{k},http://localhost/{k}.mp4,PT00H00M02S,pages,"a bar, number {k}"')
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


def clip_data(root, folder, **more):
    table = {"captions": "table.csv", "file_pattern": "{page_dir}/{videoid}.webp", "caption_column": "name"}
    wanted = {"path": str(folder), "num_images": 6, "resolution": SIDE, "frames": 4, **table, **more}
    return make_data(root, source="clip-folder", shard_images=4, **wanted)


def test_a_folder_of_clips_becomes_batches_of_clips(tmp_path):
    path = clip_data(tmp_path, films(tmp_path / "films"))
    pictures = Pictures(path.parent)
    assert pictures.frames == 4 and pictures.caption(5) == "a bar, number 5" and pictures.shard_samples == [4, 2]
    whole = Loader(path.parent, None, 6, 0, SIDE).batch(0)
    assert whole.images.shape == (6, 4, 3, SIDE, SIDE) and signal(whole.images).shape == whole.images.shape
    for number, images, caption in zip(whole.ids.tolist(), whole.images, whole.captions, strict=True):
        expected = drawings((40 * number, 200, 60))[[3, 9, 15, 21], :, 8:40]
        np.testing.assert_array_equal(images.permute(0, 2, 3, 1), expected)
        assert caption == f"a bar, number {number}"
    half = Loader(path.parent, None, 6, 0, SIDE // 2).batch(0)
    means = whole.images.float().unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).mean(dim=(4, 6))
    np.testing.assert_array_equal(half.images, means.round())
    odd = Loader(path.parent, None, 6, 0, 12).batch(0)
    assert odd.images.shape == (6, 4, 3, 12, 12)
    for options in ({"workers": 2}, {"cache_bytes": 0}):
        reading = Loader(path.parent, None, 6, 0, SIDE, **options)
        assert (reading.batch(0).images == whole.images).all()
        reading.close()
    ranks = [Loader(path.parent, None, 6, 0, SIDE, rank=rank, world=2).batch(0).images for rank in range(2)]
    assert (np.stack(ranks, axis=1).reshape(whole.images.shape) == whole.images.numpy()).all()


def test_clips_as_jpegs(tmp_path):
    folder = films(tmp_path / "films")
    path = clip_data(tmp_path, folder, stored="jpg")
    exact = clip_data(tmp_path, folder)
    for policy in ("exact", "dct"):
        a, b = (Pictures(p.parent).image(2, SIDE // 2, policy).astype(int) for p in (path, exact))
        assert a.shape == (4, 16, 16, 3) and np.abs(a - b).mean() < 8


def test_tables_that_do_not_fit_are_told(tmp_path):
    folder = films(tmp_path / "films")
    with pytest.raises(ArtifactError, match=r"file_pattern '\{page\}/x' does not fit .*the columns are videoid"):
        clip_data(tmp_path, folder, file_pattern="{page}/x")
    with pytest.raises(ArtifactError, match="has no column caption"):
        clip_data(tmp_path, folder, caption_column="caption")
    with pytest.raises(ArtifactError, match="which is not in"):
        clip_data(tmp_path, folder, file_pattern="{videoid}.mp4")
    (folder / "pages/7.webp").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"no caption \d\.txt"):
        make_data(
            tmp_path, source="clip-folder", path=str(folder / "pages"), num_images=6, resolution=SIDE, frames=4,
            captions=None,
        )  # fmt: skip


def test_clips_from_addresses_with_webvids_columns(tmp_path):
    lines = ["videoid,contentUrl,duration,page_dir,name"]
    with serving() as server:
        server.files = {"0": encoded(drawings(), tmp_path), "1": animated(drawings()), "2": b"<html>"}
        server.files["3"] = server.files["0"]
        lines += [f"{k},{server.base}/film-{k},PT2S,p,film {k}" for k in range(4)]
        (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
        path = make_recipe(
            tmp_path, "captioned-clips", 2, index=str(tmp_path / "list.csv"), num_images=4, min_success=0.5,
            sha256=sha256_file(tmp_path / "list.csv"), resolution=SIDE, frames=4, stored="png", duplicates="files",
            allowed_networks=["127.0.0.0/8"], backoff_seconds=0.01, host_pause_seconds=0.0,
            timeout_seconds=HANG_SECONDS,
        )  # fmt: skip
        index_data(path)
        for shard in (1, 0):
            write_shard(path, shard)
    manifest = write_manifest(path)
    assert manifest["failures"] == {"not a clip": 1} and manifest["duplicates"] == {"files": 1}
    assert (manifest["samples"], manifest["frames"]) == (2, 4)
    pictures = Pictures(path.parent)
    assert [pictures.caption(k) for k in range(2)] == ["film 0", "film 1"]
    assert pictures.image(0).shape == (4, SIDE, SIDE, 3)


def test_img2dataset_fetches_no_clips(tmp_path):
    wanted = {"index": "x.csv", "sha256": None, "num_images": 1, "resolution": 32, "frames": 4}
    with pytest.raises(StudyError, match="fetcher"):
        sources.resolve("captioned-clips", {**wanted, "fetcher": "img2dataset"}, "here")
    assert sources.resolve("captioned-clips", wanted, "here")["url_column"] == "contentUrl"
