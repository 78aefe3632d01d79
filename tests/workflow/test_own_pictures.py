"""The way to a study of one's own pictures, as docs/own-data.md shows it, to the shards; then the folder changes."""

import re
import shlex
import subprocess
import sys

import pytest
from PIL import Image
from repository import HANG_SECONDS, ROOT, copy_repository

from mdm.data.batches.reader import Pictures


def commands():
    """The command lines of the page's first section."""
    section = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8").split("\n## ")[1]
    return re.findall(r"^    ((?:cp|mdm) .*?)(?: +#.*)?$", section, re.MULTILINE)


def call(folder, line):
    words = shlex.split(line)
    words = [sys.executable, "-m", *words] if words[0] == "mdm" else words
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = copy_repository(tmp_path_factory.mktemp("own"))
    mine = folder / "data" / "mine"
    mine.mkdir(parents=True)
    lines = ["file,caption"]
    for k in range(700):
        Image.new("RGB", (70 + k % 9, 66), (k % 256, 90, 200)).save(mine / f"my {k}.jpg")
        lines.append(f'my {k}.jpg,"picture {k}, mine"')
    (mine / "captions.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    return folder


def test_the_page_leads_to_shards(clone):
    copy, check, run = commands()
    assert call(clone, copy).returncode == 0
    refused = call(clone, check)
    counts = re.findall(r"write num_images: (\d+)", refused.stderr)
    assert refused.returncode == 2 and sum(map(int, counts)) == 700
    study = clone / "config" / "studies" / "mine.yaml"
    study.write_text(study.read_text().replace("num_images: 950", f"num_images: {counts[0]}").replace(
        "part: validation, num_images: 50", f"part: validation, num_images: {counts[1]}"))  # fmt: skip
    assert call(clone, check).returncode == 0
    done = call(clone, f"{run} data")
    assert done.returncode == 0, done.stdout + done.stderr
    made = {folder.name.rpartition("-")[0]: Pictures(folder) for folder in (clone / "results" / "data").glob("mine*")}
    assert [len(made["mine"]), len(made["mine-new"])] == list(map(int, counts))
    assert re.fullmatch(r"picture \d+, mine", made["mine-new"].caption(0))


def test_after_a_failed_shard_a_lower_min_success_goes_on(clone):
    """Before, Snakemake planned to write the changed setting, nothing behind it, and said that all was done."""
    study, broken = clone / "config" / "studies" / "mine.yaml", clone / "data" / "mine" / "my 5.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(b"no picture")
    study.write_text(study.read_text().replace("resolution: 64,", "resolution: 64, revision: 2,", 1))
    failed = call(clone, f"{commands()[-1]} data")
    assert failed.returncode == 1 and "write a lower min_success" in failed.stderr and "my 5.jpg" in failed.stderr
    study.write_text(study.read_text().replace("revision: 2,", "revision: 2, min_success: 0.9,", 1))
    done = call(clone, f"{commands()[-1]} data")
    assert done.returncode == 0, done.stdout + done.stderr
    made = [folder for folder in (clone / "results" / "data").glob("mine*") if (folder / "manifest.json").is_file()]
    assert len(made) == 4  # both parts, before and after
    broken.write_bytes(whole)


def test_a_changed_caption_stops_the_next_run(clone):
    table = clone / "data" / "mine" / "captions.csv"
    table.write_text(table.read_text(encoding="utf-8-sig").replace("picture 5, mine", "picture five, mine"))
    refused = call(clone, f"{commands()[-1]} data")
    assert refused.returncode == 2 and "1 with another caption or class (my 5.jpg)" in refused.stderr
    assert "write revision: 3" in refused.stderr
