"""The file of a part: pictures that one of several jobs drew, and what they were drawn from. No torch."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdm.data.rows import Row
from mdm.evaluate.archive import ArrayStream, array_names, read_array, read_batches, write_archive
from mdm.evaluate.batching import divided, part_ids, part_name
from mdm.evaluate.pictures import LEVEL
from mdm.files.artifact import digest
from mdm.files.atomic import ArtifactError

COSTS = {"seconds": np.dtype(np.float64), "evaluations": np.dtype(np.int64)}  # of each batch


@dataclass(frozen=True)
class Origin:
    """What decides the bytes of pictures: parts that differ in any of it are not of one drawing."""

    recipe: str  # digest
    weights: str
    batch_images: int
    torch: str
    device: str


@dataclass(frozen=True)
class Part:
    """A part on disk."""

    path: Path
    ids: range
    origin: Origin
    asked: str  # hash of what its pictures were drawn for

    @classmethod
    def read(cls, path: Path) -> "Part":
        """Read what a part says of itself; its pictures stay on disk."""
        try:
            ids, said = part_ids(path.stem), json.loads(str(read_array(path, "made")[0]))
            origin, asked, held = Origin(**said["origin"]), str(said["asked"]), read_array(path, "ids")
        except (ArtifactError, zipfile.BadZipFile, OSError, ValueError, TypeError, LookupError) as error:
            raise ArtifactError(f"{path} is no part of drawn pictures ({error}); delete it and run again") from error
        if held.tolist() != list(ids):
            raise ArtifactError(
                f"{path} does not hold the pictures {ids.start} to {ids.stop - 1} of its name; delete it and run again"
            )
        return cls(path, ids, origin, asked)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Read one of its levels batch by batch; a zip archive has a checksum of each, which the last batch proves."""
        try:
            yield from read_batches(self.path, name, self.origin.batch_images, len(self.ids))
        except (zipfile.BadZipFile, KeyError, OSError, ValueError) as error:
            raise ArtifactError(f"{self.path} is damaged ({error}); delete it and run again") from error

    def costs(self) -> dict[str, np.ndarray]:
        """Return the seconds and network evaluations of each of its batches."""
        return {name: read_array(self.path, name) for name in COSTS}

    def batches(self) -> Iterator[tuple[range, dict[str, np.ndarray]]]:
        """Read it batch by batch, each as a file of its own would hold it."""
        levels = [name for name in array_names(self.path) if name.startswith(LEVEL)]
        size, costs = self.origin.batch_images, self.costs()
        for number, pictures in enumerate(zip(*(self.pieces(name) for name in levels), strict=True)):
            start = self.ids.start + number * size
            arrays = dict(zip(levels, pictures, strict=True))
            yield (
                range(start, min(start + size, self.ids.stop)),
                arrays | {name: values[number : number + 1] for name, values in costs.items()},
            )


def asked_for(rows: Iterable[Row]) -> str:
    """Hash what pictures are drawn for: keys, captions and labels."""
    return digest([[row.key, row.caption, row.labels] for row in rows])


def write_part(path: Path, ids: range, origin: Origin, asked: str, batches: Sequence[Path]) -> None:
    """Put the batches of a part into one file, together with what they were drawn from."""
    said = json.dumps({"origin": asdict(origin), "asked": asked}, sort_keys=True)
    arrays = {"ids": ArrayStream.of(np.array(ids)), "made": ArrayStream.of(np.array([said]))}
    arrays |= {name: cost_stream(name, batches) for name in COSTS}
    for name in array_names(batches[0]):
        if name.startswith(LEVEL):
            arrays[name] = picture_stream(name, len(ids), batches)
    write_archive(path, arrays)


def cost_stream(name: str, batches: Sequence[Path]) -> ArrayStream:
    return ArrayStream((len(batches),), COSTS[name], (read_array(path, name) for path in batches))


def picture_stream(name: str, count: int, batches: Sequence[Path]) -> ArrayStream:
    """One level of all batches; pictures stream through, so 30,000 of them need no memory."""
    first = read_array(batches[0], name)
    return ArrayStream((count, *first.shape[1:]), first.dtype, (read_array(path, name) for path in batches))


def fitting(folder: Path, origin: Origin) -> list[Part]:
    """Return the parts in a folder that are of the same drawing; whatever else lies there is not looked at closer."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        try:
            part = Part.read(path)
        except ArtifactError:  # the job whose part it is says so
            continue
        found += [part] if part.origin == origin else []
    return found


def chosen(folder: Path, num_images: int, part_images: int | None, again: str) -> list[Part]:
    """Return the parts that hold every picture once: those of this size, or all that lie in the folder.

    `again` is the command that draws a part, up to its name.
    """
    if part_images:
        paths = [folder / f"{part_name(ids)}.npz" for ids in divided(num_images, part_images)]
        paths = [path for path in paths if path.is_file()]
    else:
        paths = sorted(folder.glob("*.npz"))
    parts = sorted(map(Part.read, paths), key=lambda part: (part.ids.start, part.ids.stop))
    reached, before = 0, None
    for part in parts:
        if part.ids.stop > num_images:
            raise ArtifactError(f"{part.path} has pictures beyond the {num_images} of the recipe; delete it")
        if before and part.ids.start < reached:
            raise ArtifactError(
                f"{before.path} and {part.path.name} both hold picture {part.ids.start}; delete one of them"
            )
        _refuse_gap(folder, reached, part.ids.start, again)
        reached, before = part.ids.stop, part
    _refuse_gap(folder, reached, num_images, again)
    return parts


def _refuse_gap(folder: Path, start: int, stop: int, again: str) -> None:
    if start < stop:
        raise ArtifactError(f"no part in {folder} holds the pictures {start} to {stop - 1}; draw them: {again} "
                            f"{start}-{stop - 1}")  # fmt: skip


def check_fit(parts: Sequence[Part], expected: Mapping[str, Any], asked: Mapping[Part, str], train: str) -> None:
    """Refuse parts that were drawn for another recipe, with other weights, in other batches or for other captions."""
    words = {"recipe": "for the recipe", "weights": f"with weights of {train}", "batch_images": "in batches of"}
    for part in parts:
        for key, text in words.items():
            if (seen := getattr(part.origin, key)) != expected[key]:
                raise ArtifactError(
                    f"{part.path} was drawn {text} {str(seen)[:12]}, and now it is {str(expected[key])[:12]}: pictures "
                    "of two drawings are not mixed; delete it and run again"
                )
        if part.asked != asked[part]:
            raise ArtifactError(
                f"{part.path} was drawn for other captions or classes than there are now; delete it and run again"
            )


def differences(parts: Sequence[Part]) -> dict[str, Any]:
    """For the manifest: which part was drawn where, if that was not the same everywhere."""
    if len({(part.origin.torch, part.origin.device) for part in parts}) == 1:
        return {}
    return {"drawn_by": {part.path.stem: {"torch": part.origin.torch, "device": part.origin.device} for part in parts}}
