"""One address at a time: every way to fail has its word, and no private machine is ever contacted."""

import ipaddress
import itertools
import socket
import threading
import time

import pytest
from picture_server import jpeg, serving
from repository import HANG_SECONDS

from mdm.data.fetch.host_queue import HostQueue
from mdm.data.fetch.img2dataset_shards import reason
from mdm.data.fetch.one import FetchError, Limits, fetch
from mdm.data.fetch.public_address import may_contact
from mdm.data.pictures.failures import TRANSIENT, Failure, of_status

HERE = [ipaddress.ip_network("127.0.0.1/32")]


@pytest.fixture(scope="module")
def server():
    with serving() as httpd:
        yield httpd


def outcome(url, seconds=HANG_SECONDS, max_bytes=10**6, allowed=HERE):
    try:
        return fetch(url, Limits(seconds, max_bytes, allowed))
    except FetchError as error:
        return error.failure


@pytest.fixture
def contacted(monkeypatch):
    """Machines that this process connects to."""
    found, connect = [], socket.socket.connect

    def noting(self, target):
        found.append(target[0])
        return connect(self, target)

    monkeypatch.setattr(socket.socket, "connect", noting)
    return found


def test_good_answers_are_whole(server):
    assert outcome(f"{server.base}/untyped") == jpeg(40)
    assert outcome(f" {server.base}/to-/to-/untyped-?a=b c\n") == jpeg(40)
    assert isinstance(outcome(f"{server.base}/good-\u00e9 \u4e2d"), bytes) and server.asked["good-\u00e9 \u4e2d"] == 1


@pytest.mark.parametrize(
    ("path", "failure"),
    [
        ("missing", "http 404"), ("status-410", "http 410"), ("status-403", "http 403"), ("status-418", "http 4xx"),
        ("busy-99", "http 5xx"), ("status-429", "http 429"), ("status-204", "http other"),
        ("loop", "too many redirects"),
        ("page", "wrong type"), ("packed", "wrong type"), ("owner", "owner opted out"), ("announced", "too large"),
        ("endless", "too large"), ("short", "broken answer"), ("to-file:///etc/passwd", "bad address"),
        ("to-http://[::1", "bad address"),
    ],
)  # fmt: skip
def test_every_failure_has_its_word(server, path, failure):
    assert outcome(f"{server.base}/{path}") == failure


@pytest.mark.parametrize("path", ["drip", "slowhead"])
def test_a_server_that_drips_for_ever_meets_the_deadline(server, path):
    assert outcome(f"{server.base}/{path}", seconds=0.4) == Failure.TIMEOUT


PRIVATE = [
    "http://10.0.0.1/x", "http://169.254.169.254/latest/meta-data", "http://[::1]/x", "//192.168.0.1/x",
    "https://172.16.0.9/x", "http://[fd00::1]/x", "http://[fe80::1]/x", "http://0.0.0.0/x", "http://127.0.0.2/x",
    "http://2130706434/x", "http://0x7f000002/x", "http://[::ffff:10.0.0.1]/x", "http://[64:ff9b::a00:1]/x",
    "http://[2002:a00:1::1]/x", "http://100.64.0.1/x", "http://224.0.0.1/x",
]  # fmt: skip


@pytest.mark.parametrize("target", PRIVATE)
def test_redirects_into_private_networks_are_refused_before_connecting(server, contacted, target):
    assert outcome(f"{server.base}/to-{target}") == Failure.REFUSED_ADDRESS
    assert contacted == ["127.0.0.1"]


@pytest.mark.parametrize("target", [address for address in PRIVATE if address.startswith("http")])
def test_private_addresses_in_the_list_are_refused(contacted, target):
    assert outcome(target) == Failure.REFUSED_ADDRESS and contacted == []


def test_this_machine_is_private_unless_allowed(server, contacted):
    assert outcome(f"{server.base}/good", allowed=()) == Failure.REFUSED_ADDRESS and contacted == []


def test_a_name_is_judged_by_its_numbers(monkeypatch, server, contacted):
    """The number that was judged is the one that is contacted; private ones beside it are left out."""
    numbers = {"inside.example": ["10.0.0.1"], "both.example": ["10.0.0.1", "127.0.0.1"]}

    def resolve(host, port, **_):
        if host not in numbers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (number, port)) for number in numbers[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert outcome(f"http://inside.example:{server.server_port}/good") == Failure.REFUSED_ADDRESS
    assert outcome("http://nowhere.example/good") == Failure.NO_SUCH_NAME
    assert isinstance(outcome(f"http://both.example:{server.server_port}/good"), bytes)
    assert contacted == ["127.0.0.1"]


def test_public_numbers_may_be_contacted():
    for number in ("93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"):
        assert may_contact(ipaddress.ip_address(number))


@pytest.mark.parametrize(
    "number",
    [
        "192.0.0.8", "fec0::1", "64:ff9b:1::5db8:d822", "3fff::1", "2001:470:1f0b::5efe:10.0.0.1",
        "2001:470:1f0b::200:5efe:192.168.1.1", "::ffff:169.254.169.254", "2002:a00:1::1", "100.64.0.1",
    ],
)  # fmt: skip
def test_numbers_of_private_places_in_any_clothing_are_refused(number):
    assert not may_contact(ipaddress.ip_address(number))


@pytest.mark.parametrize(
    "url", ["", "picture.jpg", "ftp://x.org/a", "http://", "http://x:99999/", "http://\u2024.x\x00/"]
)
def test_what_is_no_address_is_called_so(url):
    assert outcome(url) == Failure.BAD_ADDRESS


def test_nobody_listening_and_a_plain_answer_to_tls(server):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert outcome(f"http://127.0.0.1:{unused.getsockname()[1]}/x") == Failure.NO_CONNECTION
    assert outcome(f"https://127.0.0.1:{server.server_port}/good") in (Failure.NO_CONNECTION, Failure.BROKEN_ANSWER)


def test_reasons_of_the_other_fetcher_use_the_same_words():
    assert reason("HTTP Error 404: Not Found") == "http 404" and of_status(502) == "http 5xx"
    assert reason("<urlopen error timed out>") == "timeout" and reason("image too small") == "too small"
    assert reason("Image decoding error") == "not a picture" and reason("what?") == "other"


def test_a_host_has_so_many_lanes_and_others_do_not_wait():
    work = HostQueue([("a", k) for k in range(20)] + [("b", k) for k in range(3)], lanes=2, pause=0.0)
    lock, now, most, seen = threading.Lock(), {"a": 0, "b": 0}, {"a": 0, "b": 0}, []

    def run():
        while (task := work.take()) is not None:
            with lock:
                now[task.host] += 1
                most[task.host] = max(most[task.host], now[task.host])
                seen.append((task.host, task.item, task.attempt))
            time.sleep(0.002)
            with lock:
                now[task.host] -= 1
            work.done(task, 0.01 if task.item == 7 and task.attempt < 2 else None)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SECONDS)
    assert most["a"] <= 2 and most["b"] <= 2
    assert sorted(seen) == sorted(
        [("a", k, 0) for k in range(20)] + [("b", k, 0) for k in range(3)] + [("a", 7, 1), ("a", 7, 2)]
    )


def test_a_host_rests_between_requests():
    work, starts = HostQueue([("a", k) for k in range(4)], lanes=1, pause=0.03), []
    while (task := work.take()) is not None:
        starts.append(time.monotonic())
        work.done(task)
    assert all(later - earlier >= 0.03 for earlier, later in itertools.pairwise(starts))


def test_what_may_go_away_by_itself_is_part_of_the_vocabulary():
    assert set(Failure) >= TRANSIENT and Failure.REFUSED_ADDRESS not in TRANSIENT
