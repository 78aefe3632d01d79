"""How fast are pictures read? Against a plain webdataset + PIL pipeline, and against the JPEG decoder alone.

    python benchmarks/data.py            (one thread, alternating rounds; writes to a temporary folder only)

Every pipeline ends in uint8 batches [64, H, W, 3] with their captions. Read the ratios: machines are noisy.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import webdataset
from PIL import Image
from simplejpeg import decode_jpeg

from mdm.cli import keep_freed_memory
from mdm.data.batches import reader
from mdm.data.batches.loader import Loader
from mdm.data.pictures.preprocess import PictureSettings, encode
from mdm.data.rows import Row
from mdm.data.shards.shard import pack

BATCH, ROUNDS, SEED = 64, 9, 0
SIDES = [(256, 256), (256, 64), (64, 64)]  # stored at, wanted at


def picture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Smooth colours with some grain: JPEGs of about the size that photographs have."""
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.clip(smooth + rng.normal(0, 6, (side, side, 3)), 0, 255).astype(np.uint8)


def write_data(folder: Path, side: int, shards: int, samples: int, pictures: int) -> Path:
    """A data folder of JPEGs as a source makes it; `pictures` different ones."""
    rng, settings = np.random.default_rng(SEED), PictureSettings(resolution=side, stored="jpg")
    made = [encode(picture(rng, side), settings) for _ in range(pictures)]
    listed = []
    (folder / "shards").mkdir(parents=True)
    for shard in range(shards):
        numbers = range(shard * samples, (shard + 1) * samples)
        path = folder / "shards" / f"{shard:05d}.tar"
        with path.open("wb") as stream:
            files = pack(stream, ((Row(f"{n:08d}", f"picture number {n}"), made[n % pictures]) for n in numbers))
        path.with_suffix(".json").write_text(json.dumps({"sha256": str(shard), "files": files}))
        listed.append({"file": f"shards/{path.name}", "sha256": str(shard), "samples": samples})
    write_manifest(folder, side, listed)
    return folder


def write_manifest(folder: Path, side: int, shards: list[dict[str, object]]) -> None:
    facts = {"digest": "", "samples": sum(s["samples"] for s in shards), "resolution": side, "shards": shards}
    (folder / "manifest.json").write_text(json.dumps(facts))


def ours(folder: Path, side: int, policy: str) -> Callable[[], None]:
    loader, seen = Loader(folder, None, BATCH, SEED, side, policy=policy, cache_bytes=0), [0]

    def batch() -> None:
        loader.batch(seen[0])
        seen[0] += BATCH

    return batch


def plain(folder: Path, side: int) -> Callable[[], None]:
    """What a tutorial writes: shuffle, decode with PIL, resize, batch."""
    urls = [str(path) for path in sorted((folder / "shards").glob("*.tar"))]

    def resized(image: Image.Image) -> np.ndarray:
        image = image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BOX)
        return np.asarray(image)

    data = (
        webdataset.WebDataset(urls, shardshuffle=len(urls), seed=SEED).shuffle(256).decode("pil").to_tuple("jpg", "txt")
    )
    batches = iter(endless(data.map_tuple(resized, str).batched(BATCH, partial=False)))
    return lambda: next(batches)


def endless(data: webdataset.WebDataset) -> Iterator[object]:
    while True:
        yield from data


def decoder(folder: Path, least: int) -> Callable[[], None]:
    """The JPEG decoder alone, nothing of ours around it, on bytes in memory; `least` is the side asked for."""
    pictures = reader.Pictures(folder)
    files = [pictures._read(number, ("jpg",))["jpg"] for number in range(BATCH)]
    if least == pictures.resolution:
        return lambda: [decode_jpeg(data) for data in files]
    return lambda: [decode_jpeg(data, min_height=least, min_width=least) for data in files]


def measure(folder: Path, stored: int, wanted: int) -> None:
    """One block of the table."""
    runs = {"webdataset + PIL": plain(folder, wanted), "ours, exact": ours(folder, wanted, "exact")}
    limits = {"ours, exact": "decoder alone"}
    runs["decoder alone"] = decoder(folder, stored)
    if stored != wanted:
        runs |= {"ours, dct": ours(folder, wanted, "dct"), "decoder alone, dct": decoder(folder, wanted)}
        limits["ours, dct"] = "decoder alone, dct"
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    repeats = 4 if stored == 256 else 24  # about a tenth of a second
    for _ in range(ROUNDS + 1):
        for name, run in runs.items():
            start = time.process_time()
            for _ in range(repeats):
                run()
            seconds[name].append((time.process_time() - start) / repeats)
    del runs
    print(f"{stored} -> {wanted} px{'':<20} ms/picture   x webdataset   share of the decoder's speed")
    for name, values in seconds.items():
        faster = ratio(seconds["webdataset + PIL"], values)
        share = f"{ratio(seconds[limits[name]], values):>24.2f}" if name in limits else ""
        print(f"    {name:<26}{1e3 * statistics.median(values[1:]) / BATCH:>11.3f}{faster:>15.2f}{share}")


def ratio(a: list[float], b: list[float]) -> float:
    """Median over the rounds of a / b, without the first round."""
    return statistics.median(x / y for x, y in zip(a[1:], b[1:], strict=True))


def seek(folder: Path) -> None:
    """From a manifest of twelve million to the numbers of the batch at image 10,000,000."""
    folder.mkdir()
    write_manifest(folder, 64, [{"file": f"shards/{n:05d}.tar", "sha256": "", "samples": 1000} for n in range(12_000)])
    start = time.perf_counter()
    Loader(folder, None, 1024, SEED, 64, cache_bytes=0).ids(10_000_000, 1024)
    print(f"seek to image 10,000,000 of 12,000,000 in 12,000 shards: {time.perf_counter() - start:.3f} s")


def memory(folder: Path) -> None:
    """Resident memory over an epoch, with the bound on open samples as much smaller as the data set is."""
    reader.OPEN_SAMPLES = 4000
    write_data(folder, 16, shards=40, samples=1000, pictures=8)
    loader, process, seen = Loader(folder, None, 500, SEED, 16, cache_bytes=0), psutil.Process(), []
    loader._order = type(loader._order)(loader.pictures.shard_samples, SEED, window_images=2000)
    for images in range(0, 40_000, 500):
        loader.batch(images)
        seen.append(process.memory_info().rss / 2**20)
    print(f"memory over an epoch of 40,000, MiB at each tenth: {' '.join(f'{m:.1f}' for m in seen[7::8])}")


def main() -> None:
    keep_freed_memory()  # as every verb does
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        stored = {side: write_data(root / str(side), side, 4, 128, 64) for side in (256, 64)}
        for side, wanted in SIDES:
            measure(stored[side], side, wanted)
        seek(root / "large")
        memory(root / "many")


if __name__ == "__main__":
    main()
