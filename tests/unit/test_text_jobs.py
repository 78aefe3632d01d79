"""Captions embedded by many jobs: the same files as by one, whoever is killed and whoever works at the same time."""

import os
import signal
import subprocess
import sys
import tracemalloc

import pytest
import torch
from evaluate_artifacts import put, ref

from mdm.data.shards.index import index_data, read_index
from mdm.data.sources import registry as sources
from mdm.data.text import cache, captions, gather, shard
from mdm.files.atomic import ArtifactError, read_json, write_atomic
from mdm.files.lock import only_writer
from mdm.study import study

ENCODER = {"name": "tiny-t5", "settings": {"channels": 8, "layers": 1, "heads": 2, "max_tokens": 8}, "channels": 8}
SHARD, BATCH = 128, 64
# A process of its own with small shards; perhaps one that kills itself with the third batch, inside a shard.
PROGRAM = """
import os, sys
from mdm.data.text import captions, encoder, shard
captions.SHARD_CAPTIONS, shard.BATCH = {shard}, {batch}
calls, encode = [], encoder.Encoder.encode
def deadly(self, texts):
    calls.append(texts)
    return encode(self, texts) if len(calls) < 4 else os.kill(os.getpid(), 9)
if {deadly}:
    encoder.Encoder.encode = deadly
from mdm.cli import main
sys.exit(main(sys.argv[1:]))
"""


def start(*arguments, deadly=False):
    program = PROGRAM.format(shard=SHARD, batch=BATCH, deadly=deadly)
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def text_recipe(results):
    """A text artifact of 1,200 drawn scenes, many of which have the same caption; only the index is there."""
    wanted = {"seed": 0, "split": "all", "num_images": 1200, "resolution": 16, "max_objects": 2}
    data = put(results, "data", "scenes", source="scenes", settings=sources.resolve("scenes", wanted, "test"),
               shard_images=64)  # fmt: skip
    index_data(data)
    return put(results, "text", "tiny", encoder=ENCODER, data=[ref(data)], captions=["negative"])


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(captions, "SHARD_CAPTIONS", SHARD)


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    """What one process makes, left alone."""
    recipe = text_recipe(tmp_path_factory.mktemp("one"))
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captions, "SHARD_CAPTIONS", SHARD)
        patch.setattr(shard, "BATCH", BATCH)
        cache.embed(recipe)
    return recipe.parent


def content(folder):
    """Everything but the records of how it was made."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.suffix != ".done"}


def described(folder):
    return {key: value for key, value in read_json(folder / "manifest.json").items() if key != "seconds"}


def test_killed_and_simultaneous_jobs_make_the_files_of_one(by_one, tmp_path, small_shards):
    recipe = text_recipe(tmp_path)
    listing = captions.list_captions(recipe)
    assert 3 <= listing.shards < listing.most_shards == 10
    killed = start("embed", recipe, "--shard", "0-1", deadly=True)
    assert killed.wait() == -signal.SIGKILL
    assert list(recipe.parent.glob("shards/.00001.*.tmp")) and (recipe.parent / "shards/00000.json").is_file()
    jobs = [start("embed", recipe, "--shard", shards) for shards in ("0-4", "5-9")]
    assert [job.wait() for job in jobs] == [0, 0]
    gather.gather(recipe)
    assert content(recipe.parent) == content(by_one)  # also no temporary, and no lock
    assert described(recipe.parent) == described(by_one)


def test_shards_hold_what_first_appears_there(by_one, small_shards):
    rows = read_index(by_one.parents[1] / ref(next(by_one.parents[1].glob("data/*/recipe.json"))))
    distinct = list(dict.fromkeys(["", "negative", *(row.caption for row in rows)]))
    listing = captions.read_listing(by_one / "recipe.json")
    found = [listing.shard(number) for number in range(listing.shards)]
    assert found == [sorted(distinct[k : k + SHARD]) for k in range(0, len(distinct), SHARD)]
    assert read_json(by_one / "manifest.json")["captions"] == len(distinct)


def test_whole_shards_are_left_alone(by_one, small_shards):
    before = {path: path.stat().st_mtime_ns for path in by_one.rglob("*")}
    cache.embed_shards(by_one / "recipe.json", 0, 9)
    after = {path: path.stat().st_mtime_ns for path in by_one.rglob("*")}
    assert {path for path in after if after[path] != before.get(path)} <= {by_one / "shards"}  # a lock came and went
    assert read_json(by_one / "shards/00000-00009.done")["device"] in ("cpu", "cuda")


@pytest.fixture
def made(tmp_path):
    """A small artifact whose recipe the test may break."""
    recipe = text_recipe(tmp_path)
    cache.embed(recipe)
    return recipe


def test_a_shard_that_is_not_whole_is_refused_and_made_again(made):
    path, before = made.with_name("shards") / "00000.safetensors", content(made.parent)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"was damaged.*mdm embed .*recipe\.json --shard 0"):
        gather.gather(made)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"does not exist; make it again: .* --shard 0"):
        gather.gather(made)
    cache.embed_shards(made, 0, 0)
    gather.gather(made)
    assert content(made.parent) == before


def test_a_list_of_another_index_is_refused(made):
    index = next(made.parents[2].glob("data/*/index.tsv"))
    write_atomic(index, index.read_text().replace("red", "crimson"))
    for verb in (lambda: cache.embed_shards(made, 0, 0), lambda: gather.gather(made)):
        with pytest.raises(ArtifactError, match=r"another index\.tsv than is there now; make it again: .*mdm index"):
            verb()
    captions.list_captions(made)
    with pytest.raises(ArtifactError, match="made from other captions"):
        gather.gather(made)


def test_shards_that_cannot_be_are_refused(made):
    with pytest.raises(ArtifactError, match="has shards 0 to 0 at most, there is no shard 1"):
        cache.embed_shards(made, 0, 1)
    made.with_name("captions.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"captions\.safetensors does not exist; make it: python -m mdm index"):
        cache.embed_shards(made, 0, 0)


def test_the_next_start_removes_what_a_killed_one_left(made):
    names = ("captions.safetensors", "lookup.safetensors", "manifest.json", "shards/00000-00000.done")
    torn = [(made.parent / name).with_name(f".{name.rpartition('/')[2]}.4000000.tmp") for name in names]
    for path in torn:
        path.write_bytes(b"torn")
    cache.embed(made)
    assert not [path for path in torn if path.exists()]


def test_a_shard_has_one_writer(made):
    path = made.with_name("shards") / "00000.safetensors"
    path.unlink()
    with only_writer(path.parent, path.stem):
        mine = path.with_name(".00000.safetensors.1.tmp")
        mine.write_bytes(b"at work")
        with pytest.raises(ArtifactError, match=r"another process is writing .*00000 "):
            cache.embed_shards(made, 0, 0)
        assert mine.exists() and not path.exists()
    cache.embed_shards(made, 0, 0)
    assert path.exists() and not mine.exists()


def test_the_list_takes_few_bytes_per_caption():
    texts = [f"caption {k % 150_000}" for k in range(200_000)]
    tracemalloc.start()
    listing = captions.listed(captions.Captions((), texts), 65_536)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(listing.places) == 150_001 and listing.shards == 3
    assert peak < 60 * len(texts), "a set of them would take 150 bytes each"


def test_jobs_of_a_study_are_known_before_anything_is_read():
    paper = study.load("paper")
    jobs = {ref: paper.shard_jobs(ref) for ref in paper.of_kind("text")}
    cc12m = next(jobs[ref] for ref in jobs if ref.startswith("text/flan-t5-xl-cc12m-256-"))
    assert (len(cc12m), cc12m[0], cc12m[-1]) == (23, "00000-00007", "00176-00183")
    one = study.load("paper", {f"text.{name}.shards_per_job": 1000 for name in ("flan-t5-xl", "flan-t5-xl-256")})
    assert {ref: ["00000-" + jobs[ref][-1][6:]] for ref in jobs} == {ref: one.shard_jobs(ref) for ref in jobs}
    for name in ("quick", "laptop", "today", "own", "workstation"):
        loaded = study.load(name)
        assert {len(loaded.shard_jobs(ref)) for ref in loaded.of_kind("text")} == {1}
