"""Pictures in .npz files that never have to fit into memory: written and read in batches."""

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from mdm.files.atomic import ArtifactError, replacing


@dataclass(frozen=True)
class ArrayStream:
    """An array given piece by piece along its first dimension."""

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Iterable[np.ndarray]

    @classmethod
    def of(cls, array: np.ndarray) -> Self:
        return cls(array.shape, array.dtype, [array])


def write_archive(path: Path, arrays: Mapping[str, ArrayStream]) -> None:
    """Write an uncompressed .npz atomically; the same arrays give the same bytes."""
    with replacing(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            _write_member(archive, name, array)


def _write_member(archive: zipfile.ZipFile, name: str, array: ArrayStream) -> None:
    # A ZipInfo of our own carries no clock time, so equal pictures make equal files.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(member, header)
        written = 0
        for piece in array.pieces:
            member.write(np.ascontiguousarray(piece, dtype=array.dtype).tobytes())
            written += len(piece)
    if written != array.shape[0]:
        raise ValueError(f"array {name} was announced with {array.shape[0]} rows, but {written} came")


def read_array(path: Path, name: str) -> np.ndarray:
    """One small array of an archive; pickled objects are refused."""
    with np.load(path, allow_pickle=False) as archive:
        if name not in archive:
            raise ArtifactError(f"{path} has no array {name!r}; it holds {sorted(archive)}")
        return archive[name]


def read_rows(path: Path, name: str, rows: Sequence[int]) -> np.ndarray:
    """Rows of an array by number, without loading the rest."""
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(f"{name}.npy").header_offset
    with path.open("rb") as stream:
        # Nothing is compressed, so the array lies in the file as it is, behind a header of 30 bytes, name and extra.
        stream.seek(start)
        header = stream.read(30)
        stream.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        stored = np.memmap(stream, dtype, "r", offset=stream.tell(), shape=shape)
    if wrong := [row for row in rows if not 0 <= row < shape[0]]:
        raise ArtifactError(f"{path} holds {shape[0]} pictures, but number {wrong[0]} is asked for")
    return np.array(stored[np.asarray(rows, dtype=np.int64)])


def array_names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_batches(path: Path, name: str, batch_images: int, num_images: int) -> Iterator[np.ndarray]:
    """The first num_images rows of an array, batch by batch, without loading the rest."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        if shape[0] < num_images:
            raise ArtifactError(f"{path} holds {shape[0]} pictures, but {num_images} are asked for")
        row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        for start in range(0, num_images, batch_images):
            rows = min(batch_images, num_images - start)
            yield np.frombuffer(member.read(rows * row_bytes), dtype).reshape(rows, *shape[1:])
