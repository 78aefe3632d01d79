"""Locks on files: one holder, who is named, and no end of a process leaves one behind."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from mdm.files.atomic import ArtifactError
from mdm.files.lock import began, held, holder, only_writer, take
from mdm.train.checkpoint import only_trainer

WAIT = "import sys; print(flush=True); sys.stdin.read()"
# Takes a lock, leaves it to a child that holds it until the end of its input, and ends.
LEAVE = f"""
import subprocess, sys
lock = open(sys.argv[1], "w")
from mdm.files.lock import take
assert take(lock)
child = subprocess.Popen([sys.executable, "-c", {WAIT!r}], pass_fds=[lock.fileno()])
"""


def start(program, *arguments):
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdin=-1, stdout=-1)
    process.stdout.readline()  # it is at work
    return process


def refused(error):
    """As a file system does that cannot lock."""

    def flock(*_):
        raise OSError(error, os.strerror(error))

    return flock


def test_a_lock_has_one_holder_who_is_named(tmp_path):
    path = tmp_path / "new" / "lock"
    with held(path, "writing a poem") as locked:
        assert locked and holder(path) == os.getpid()
        message = rf"another process is writing a poem \(lock is locked by process {os.getpid()}\)"
        with pytest.raises(ArtifactError, match=message), held(path, "writing a poem"):
            pass
    assert holder(path) is None
    with held(path, "writing a poem"):
        pass


def test_a_lock_is_held_as_long_as_a_child_has_it_and_a_zombie_holds_none(tmp_path):
    path = tmp_path / "lock"
    process = start(LEAVE, str(path))
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie, as long as nobody asks for its end
    assert began(process.pid) == "" and holder(path) is None
    with open(path) as file:
        assert take(file) is False
        process.stdin.close()
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for the child's end
    process.wait()


def test_a_lock_that_its_holder_has_removed_meanwhile_is_not_taken(tmp_path, monkeypatch):
    path, flock = tmp_path / "lock", fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda *words: (path.unlink(), flock(*words)))
    with pytest.raises(ArtifactError, match="another process is writing"), held(path, "writing"):
        pass


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_writers_spare_one_another_but_trainers_refuse(tmp_path, monkeypatch, error):
    monkeypatch.setattr(fcntl, "flock", refused(error))
    of_another = tmp_path / ".00000.1.tmp"
    of_another.write_text("half")
    with only_writer(tmp_path, "00000"):
        assert of_another.exists()
    with pytest.raises(ArtifactError, match="lies on a file system without locks"), only_trainer(tmp_path):
        pass


def test_what_else_goes_wrong_is_no_missing_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refused(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), held(tmp_path / "lock", "writing"):
        pass
