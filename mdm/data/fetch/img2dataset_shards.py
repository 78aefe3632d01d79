"""A shard fetched by img2dataset: for lists that are trusted (see mdm/data/sources/addresses.py)."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mdm.data.pictures.failures import Failure, of_status
from mdm.data.rows import Outcomes, Picture, Row
from mdm.files.atomic import ArtifactError

# Without the first, a dependency of img2dataset calls the package index at import.
QUIET = {"NO_ALBUMENTATIONS_UPDATE": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
CALL = "import json, sys; from img2dataset import download; download(**json.loads(sys.argv[1]))"
# Its reasons are free text; these words are in the ones it gives.
WORDS = {
    "timed out": Failure.TIMEOUT, "Image decoding error": Failure.NOT_A_PICTURE, "decod": Failure.BROKEN_PICTURE,
    "too small": Failure.TOO_SMALL, "Connection refused": Failure.NO_CONNECTION, "reset": Failure.NO_CONNECTION,
    "unreachable": Failure.NO_CONNECTION, "Name or service": Failure.NO_SUCH_NAME, "CERTIFICATE": Failure.CERTIFICATE,
    "IncompleteRead": Failure.BROKEN_ANSWER, "unknown url": Failure.BAD_ADDRESS, "disallowed": Failure.OPTED_OUT,
}  # fmt: skip


def pictures(rows: list[Row], resolution: int, timeout_seconds: int, threads: int, retries: int) -> Outcomes:
    if not rows:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with (root / "list.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps({"url": row.columns["url"], "row": row.key}) + "\n" for row in rows)
        _fetch(root, {
            "number_sample_per_shard": len(rows), "image_size": resolution, "min_image_size": resolution,
            "timeout": timeout_seconds, "thread_count": threads, "retries": retries,
        })  # fmt: skip
        yield from _results(root / "fetched")


def _fetch(root: Path, asked: dict[str, int]) -> None:
    """Run img2dataset in a process of its own: it leaves threads, handlers and variables behind."""
    options: dict[str, Any] = asked | {
        "url_list": str(root / "list.jsonl"), "input_format": "jsonl", "save_additional_columns": ["row"],
        "output_folder": str(root / "fetched"), "output_format": "files", "resize_mode": "center_crop",
        "extract_exif": False, "processes_count": 1,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CALL, json.dumps(options)],
        env={**os.environ, **QUIET}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode or not list((root / "fetched").glob("*.parquet")):
        raise ArtifactError(f"img2dataset ended with code {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")


def _results(folder: Path) -> Outcomes:
    """Yield the picture, or the reason why there is none, of every address that img2dataset reports on."""
    from pyarrow import parquet

    for table in sorted(folder.glob("*.parquet")):
        for row in parquet.read_table(table, columns=["row", "key", "status", "error_message"]).to_pylist():
            if row["status"] == "success":
                yield row["row"], Picture("jpg", (folder / table.stem / f"{row['key']}.jpg").read_bytes())
            else:
                yield row["row"], reason(str(row["error_message"]))


def reason(message: str) -> Failure:
    """Translate what img2dataset says into our vocabulary."""
    if status := re.match(r"HTTP Error (\d{3})", message):
        return of_status(int(status[1]))
    return next((failure for words, failure in WORDS.items() if words in message), Failure.OTHER)
