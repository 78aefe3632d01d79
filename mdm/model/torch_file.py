"""Files of torch.save, opened without running anything in them: one pickle as data, and where its numbers lie.

A zip archive since PyTorch 1.6; before, five pickles in a row and then the storages.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdm.files.atomic import ArtifactError, printable
from mdm.model.pickle_as_data import Named, Outside, PickleError, read_pickle

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
LOCAL_HEADER, LOCAL_HEADER_BYTES = b"PK\3\4", 30
ITEM_BYTES = {
    "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "DoubleStorage": 8, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1, "UntypedStorage": 1,
    "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Region:
    """Where the bytes of one storage lie in the file, and their checksum if the file has one."""

    start: int
    size: int
    crc: int | None = None


@dataclass(frozen=True)
class TorchFile:
    """The value that was saved (`mdm.model.pickle_as_data`), and the storages it refers to by key."""

    path: Path
    layout: str
    value: Any
    data: mmap.mmap
    storages: dict[str, Region]

    def verify(self) -> None:
        """Compare every storage with its checksum; old files have none."""
        for key, region in self.storages.items():
            if not _is_whole(self.data, region):
                name = printable(key)
                raise ArtifactError(f"{self.path} is damaged: storage {name} does not have its checksum; get it again")


@dataclass(frozen=True)
class StorageId:
    """What the pickle says of a storage: the name of its type, its key, how many items it has."""

    kind: str
    key: str
    items: int


def storage_id(reference: Outside) -> StorageId | None:
    """The parts of a reference to a storage; None if it refers to something else."""
    match reference.identity:
        case ("storage", Named(module="torch" | "torch.storage", name=kind), str(key), _, int(items), *view):
            return StorageId(kind, key, items) if items >= 0 and view in ([], [None]) else None
    return None


def open_torch_file(path: Path) -> TorchFile:
    """Map a file of torch.save and read its pickle as data."""
    try:
        with open(path, "rb") as stream:
            # Private to this process and writable, as tensors are; pages are read when they are wanted.
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        is_zip = data[:4] == LOCAL_HEADER
        layout, (value, storages) = ("zip", _read_zip(data)) if is_zip else ("legacy", _read_legacy(data))
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist") from None
    except (ValueError, OSError, zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        said = printable(str(error), 500)
        raise ArtifactError(
            f"{path} is not a complete file of torch.save: {said}; if it is a download, get it again"
        ) from None
    return TorchFile(path, layout, value, data, storages)


def _read_zip(data: mmap.mmap) -> tuple[Any, dict[str, Region]]:
    with zipfile.ZipFile(data) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise ValueError("the archive has two members of one name, of which readers may take either")
    pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError(f"the archive has {len(pickles)} members named data.pkl, not one")
    folder = pickles[0].removesuffix("data.pkl")
    order = members.get(f"{folder}byteorder")
    if order is not None and _content(data, order) != b"little":
        raise ValueError("its byte order is not 'little', the only one that can be read")
    parsed = read_pickle(io.BytesIO(_content(data, members[pickles[0]])))
    storages = {}
    for key in _storages(parsed.references):
        if f"{folder}data/{key}" not in members:
            raise ValueError(f"storage {printable(key)} is not in the archive")
        storages[key] = _region(data, members[f"{folder}data/{key}"])
    return parsed.value, storages


def _storages(references: tuple[Outside, ...]) -> dict[str, StorageId]:
    """What is known of each storage, by key."""
    return {known.key: known for known in map(storage_id, references) if known}


def _region(data: mmap.mmap, member: zipfile.ZipInfo) -> Region:
    """Where the content of an archive's member lies; torch.save never compresses, so nothing is unpacked here."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size or member.flag_bits & 1:
        raise ValueError(f"{printable(member.filename)} is compressed or encrypted, which torch.save never does")
    header = data[member.header_offset : member.header_offset + LOCAL_HEADER_BYTES]
    if len(header) < LOCAL_HEADER_BYTES or not header.startswith(LOCAL_HEADER):
        raise ValueError(f"{printable(member.filename)} is not where the archive says")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:])
    start = member.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    # torch.save can be told to leave checksums out, and then writes zeros.
    return _inside(data, Region(start, member.file_size, member.CRC or None), member.filename)


def _inside(data: mmap.mmap, region: Region, what: str) -> Region:
    if region.start + region.size > len(data):
        raise ValueError(f"it ends within {printable(what)}")
    return region


def _content(data: mmap.mmap, member: zipfile.ZipInfo) -> bytes:
    region = _region(data, member)
    if not _is_whole(data, region):
        raise ValueError(f"{printable(member.filename)} does not have its checksum")
    return data[region.start : region.start + region.size]


def _is_whole(data: mmap.mmap, region: Region) -> bool:
    with memoryview(data) as view:
        return region.crc is None or zlib.crc32(view[region.start : region.start + region.size]) == region.crc


def _read_legacy(data: mmap.mmap) -> tuple[Any, dict[str, Region]]:
    try:
        magic = read_pickle(data).value
    except PickleError:
        magic = None
    if magic != LEGACY_MAGIC:
        raise ValueError("it does not begin as such files do")
    if read_pickle(data).value != LEGACY_PROTOCOL:
        raise ValueError(f"its protocol is not {LEGACY_PROTOCOL}, the only one there is")
    machine = read_pickle(data).value
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("it was not written on a little-endian machine")
    parsed, keys = read_pickle(data), read_pickle(data).value
    identities = _storages(parsed.references)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(identities):
        raise ValueError("its list of storages is not that of its tensors")
    return parsed.value, dict(_legacy_storages(data, [identities[key] for key in keys]))


def _legacy_storages(data: mmap.mmap, identities: list[StorageId]) -> Iterator[tuple[str, Region]]:
    """Each storage: how many items it has (8 bytes), then the items."""
    for identity in identities:
        key, count = printable(identity.key), data.read(8)
        if len(count) < 8:
            raise ValueError(f"it ends before storage {key}")
        if identity.kind not in ITEM_BYTES:
            raise ValueError(f"storage {key} is a {printable(identity.kind)}, whose size is not known here")
        (items,) = struct.unpack("<q", count)
        size = items * ITEM_BYTES[identity.kind]
        if items != identity.items:
            raise ValueError(f"storage {key} has {items} items, but its description says {identity.items}")
        yield identity.key, _inside(data, Region(data.tell(), size), f"storage {key}")
        data.seek(size, 1)
