"""Archives of packages: the published hash decides, nothing is unpacked, a missing client is one clear sentence."""

import base64
import hashlib
import io
import tarfile
import zipfile

import pytest

from mdm.data.fetch import packages
from mdm.data.fetch.packages import Package, archive, member, members
from mdm.files.atomic import ArtifactError


def tgz(path, **files):
    with tarfile.open(path, "w:gz") as opened:
        for name, content in files.items():
            add(opened, name, content)
    return path


def add(opened, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    opened.addfile(entry, io.BytesIO(content))


def published(path):
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def package(client="npm", hash="sha512-none", name="@some/drawings", version="1:2.0"):
    return Package(client, name, version, hash, "MIT")


def test_names_are_plain_file_names():
    assert package().file == "some-drawings-1_2.0.tgz"
    assert package("apt-get", name="clip-art").file == "clip-art-1_2.0.deb"


def test_an_archive_put_there_by_hand_needs_no_client(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    path = tgz(tmp_path / package().file, **{"package/a.json": b"{}"})
    assert archive(package(hash=published(path)), tmp_path) == path
    assert member(path, "package/a.json") == b"{}"


def test_another_file_of_the_same_name_is_refused(tmp_path):
    path = tgz(tmp_path / package().file, a=b"1")
    with pytest.raises(ArtifactError, match=r"is not @some/drawings 1:2\.0 as published.*delete it"):
        archive(package(hash="sha512-" + "A" * 86 + "=="), tmp_path)
    with pytest.raises(ArtifactError, match=hashlib.sha256(path.read_bytes()).hexdigest()):
        archive(package(hash="0" * 64), tmp_path)


@pytest.mark.parametrize("client", ["npm", "pip", "apt-get"])
def test_a_missing_client_is_named_with_the_way_around(client, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(ArtifactError, match=f"there is no {client} here; install .*put the archive at .*some-drawings"):
        archive(package(client), tmp_path / "packages")


def npm_that(tmp_path, monkeypatch, does):
    """A client of our own in place of the real one."""
    client = tmp_path / "bin" / "npm"
    client.parent.mkdir()
    client.write_text(f"#!/bin/sh\n{does}\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:/bin:/usr/bin")


def test_what_a_client_says_reaches_the_user_and_leaves_nothing(tmp_path, monkeypatch):
    npm_that(tmp_path, monkeypatch, "echo no such package: $2 >&2\nexit 3")
    with pytest.raises(ArtifactError, match=r"exit 3\): no such package: @some/drawings@1:2.0"):
        archive(package(), tmp_path / "packages")
    assert list((tmp_path / "packages").iterdir()) == []


def test_a_client_that_brings_something_else_is_refused(tmp_path, monkeypatch):
    npm_that(tmp_path, monkeypatch, "echo other > drawings.tgz")
    with pytest.raises(ArtifactError, match="as published"):
        archive(package(), tmp_path / "packages")
    assert list((tmp_path / "packages").iterdir()) == []


def deb(path, data):
    def entry(name, content):
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        return header + content + b"\n" * (len(content) % 2)

    path.write_bytes(b"!<arch>\n" + entry("debian-binary", b"2.0") + entry("control.tar.xz", b"odd") + data(entry))
    return path


def test_debian_packages_and_wheels_are_read_in_place(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as opened:
        add(opened, "./usr/share/a.svg", b"<svg/>")
        add(opened, "./usr/share/b.txt", b"text")
    path = deb(tmp_path / "x.deb", lambda entry: entry("data.tar.xz", stream.getvalue()))
    assert list(members(path, lambda name: name.endswith(".svg"))) == [("./usr/share/a.svg", b"<svg/>")]
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as opened:
        opened.writestr("data/weights.pt", b"weights")
    assert member(tmp_path / "x.whl", "data/weights.pt") == b"weights"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.deb", "x.whl"]


def test_links_and_names_that_lead_outside_give_no_file(tmp_path):
    path = tmp_path / "x.tgz"
    with tarfile.open(path, "w:gz") as opened:
        link = tarfile.TarInfo("package/link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(link)
        add(opened, "../../outside.json", b"{}")
    assert list(members(path, lambda name: True)) == [("../../outside.json", b"{}")]
    assert [file.name for file in tmp_path.iterdir()] == ["x.tgz"]
    assert not (tmp_path.parent.parent / "outside.json").exists()


def test_damaged_archives_and_bombs_are_refused(tmp_path, monkeypatch):
    for name, content in {
        "a.tgz": b"no tar",
        "b.whl": b"no zip",
        "c.deb": b"no ar",
        "d.deb": b"!<arch>\n" + b"?" * 60,
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=f"(?s){name}.*delete it"):
            list(members(tmp_path / name, lambda _: True))
    whole = tgz(tmp_path / "e.tgz", a=b"0" * 5000)
    (tmp_path / "f.tgz").write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=r"f\.tgz cannot be read"):
        list(members(tmp_path / "f.tgz", lambda _: True))
    monkeypatch.setattr(packages, "MAX_MEMBER_BYTES", 4000)
    with pytest.raises(ArtifactError, match="5,000 bytes, more than the 4,000"):
        list(members(whole, lambda _: True))
    with pytest.raises(ArtifactError, match="holds no b"):
        member(whole, "b")
