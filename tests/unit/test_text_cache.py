"""The cache of embedded captions: in shards, exact, flat in memory, and finished by whoever comes after a kill."""

import tracemalloc

import pytest
import torch
from caption_cache import load_encoder, write_cache
from safetensors.torch import load_file

from mdm.data.text import cache, captions
from mdm.data.text.shard import Shard
from mdm.files.atomic import ArtifactError

SMALL = {"name": "tiny-t5", "settings": {"channels": 8, "layers": 1, "heads": 2, "max_tokens": 8}}
LOOKUP = "lookup.safetensors"
CAPTIONS = [f"number {k % 150} of {k % 7} things, ü" for k in range(400)]


@pytest.fixture(scope="module")
def small():
    return load_encoder(SMALL)


class Counting:
    """The encoder, and how many captions it was given."""

    def __init__(self, inner, stop_after=None):
        self._inner, self.seen, self._stop = inner, 0, stop_after
        self.channels, self.stored = inner.channels, inner.stored

    def encode(self, captions):
        if self._stop is not None and self.seen + len(captions) > self._stop:
            raise KeyboardInterrupt
        self.seen += len(captions)
        return self._inner.encode(captions)


def test_each_caption_is_stored_once_in_the_shard_where_it_first_appears(small, tmp_path):
    counting = Counting(small)
    counts = write_cache(tmp_path, CAPTIONS, counting, shard_captions=64)
    distinct = list(dict.fromkeys(["", *CAPTIONS]))
    assert counting.seen == counts["captions"] == len(distinct)
    sizes = [shard["captions"] for shard in counts["shards"]]
    assert sizes[:-1] == [64] * (len(sizes) - 1) and sum(sizes) == len(distinct)
    second = Shard(tmp_path / counts["shards"][1]["file"])
    assert [second.text(row).decode() for row in range(64)] == sorted(distinct[64:128])


def test_lookup_is_exact_in_every_shard(small, tmp_path):
    write_cache(tmp_path, CAPTIONS, small, shard_captions=64)
    embeddings, distinct = cache.Embeddings(tmp_path), list(dict.fromkeys(["", *CAPTIONS]))
    for start in range(0, len(distinct), 64):
        part = sorted(distinct[start : start + 64])
        features, mask = small.encode(part)
        found, found_mask = embeddings.lookup(part)
        assert torch.equal(found[:, : mask.shape[1]], features.half().float())
        assert torch.equal(found_mask[:, : mask.shape[1]], mask)
        assert not found[:, mask.shape[1] :].any() and found.shape[1] == embeddings.tokens == 8


def test_captions_that_share_a_hash_are_told_apart(small, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    write_cache(whole, CAPTIONS, small, shard_captions=64)
    proper = cache.Embeddings(whole).lookup(CAPTIONS[:50])
    monkeypatch.setattr(captions, "key", lambda caption: len(caption) % 3)
    write_cache(tmp_path / "shared", CAPTIONS, small, shard_captions=64)
    embeddings = cache.Embeddings(tmp_path / "shared")
    assert all(torch.equal(a, b) for a, b in zip(embeddings.lookup(CAPTIONS[:50]), proper, strict=True))
    assert "a purple cow" not in embeddings


def test_a_killed_writer_leaves_its_shards_to_the_next(small, tmp_path):
    write_cache(tmp_path / "unbroken", CAPTIONS, small, shard_captions=64)
    with pytest.raises(KeyboardInterrupt):
        write_cache(tmp_path / "killed", CAPTIONS, Counting(small, stop_after=150), shard_captions=64)
    assert not (tmp_path / "killed" / LOOKUP).exists()
    second = tmp_path / "killed/shards/00001.safetensors"
    second.write_bytes(second.read_bytes()[:-1])
    counting = Counting(small)
    counts = write_cache(tmp_path / "killed", CAPTIONS, counting, shard_captions=64)
    assert counting.seen == counts["captions"] - 64
    files = [LOOKUP, *(shard["file"] for shard in counts["shards"])]
    assert all((tmp_path / "killed" / f).read_bytes() == (tmp_path / "unbroken" / f).read_bytes() for f in files)


def test_memory_does_not_grow_with_the_captions(small, tmp_path):
    peaks = []
    for count in (1_000, 20_000):
        captions = [f"caption {k}" for k in range(count)]
        write_cache(tmp_path / str(count), captions, small, shard_captions=4_096)
        asked = captions[:: count // 50]
        del captions
        tracemalloc.start()
        embeddings = cache.Embeddings(tmp_path / str(count))
        for _ in range(3):
            embeddings.lookup(asked)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 50_000, "20,000 captions in memory would take millions of bytes; a shard's handle takes 2,000"


def test_the_files_are_safetensors(small, tmp_path):
    counts = write_cache(tmp_path, CAPTIONS[:10], small)
    shard = load_file(tmp_path / "shards/00000.safetensors")
    assert shard["features"].shape == (counts["tokens"], 8) and shard["features"].dtype == torch.float16
    texts = bytes(shard["texts"].tolist())
    first = texts[shard["text_offsets"][1] : shard["text_offsets"][2]].decode()
    assert first == sorted(CAPTIONS[:10])[0] and int(shard["offsets"][-1]) == counts["tokens"]
    assert sorted(load_file(tmp_path / LOOKUP)) == ["keys", "longest", "places"]


@pytest.mark.parametrize("keep", [0, 5, 700, -1])
def test_a_cut_file_is_refused(small, tmp_path, keep):
    write_cache(tmp_path, CAPTIONS[:10], small)
    for file in (LOOKUP, "shards/00000.safetensors"):
        whole = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(whole[:keep])
        with pytest.raises(ArtifactError, match=r"embed again|cut off"):
            cache.Embeddings(tmp_path)
        (tmp_path / file).write_bytes(whole)


def test_features_that_halves_cannot_hold(tmp_path):
    large = load_encoder(SMALL)
    large.model.encoder.final_layer_norm.weight.fill_(1e5)
    with pytest.raises(ArtifactError, match="stored: bfloat16"):
        write_cache(tmp_path / "float16", CAPTIONS[:3], large)
    large.stored = torch.bfloat16
    write_cache(tmp_path / "bfloat16", CAPTIONS[:3], large)
    found, wanted = cache.Embeddings(tmp_path / "bfloat16").lookup([CAPTIONS[0]])[0], large.encode([CAPTIONS[0]])[0]
    torch.testing.assert_close(found[:, : wanted.shape[1]], wanted, rtol=2**-8, atol=1e3)
