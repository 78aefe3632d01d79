"""A real HTTP server on this machine that serves pictures, and everything that goes wrong with pictures."""

import contextlib
import http.server
import io
import struct
import threading
import time
import zlib
from collections import Counter
from urllib.parse import unquote

from PIL import Image


def jpeg(side, colour=(200, 30, 30)):
    stream = io.BytesIO()
    Image.new("RGB", (side + 8, side), colour).save(stream, format="JPEG")
    return stream.getvalue()


def bomb(side=20000):
    """A PNG of side x side grey pixels in a few hundred bytes that would unpack to gigabytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    )


class Handler(http.server.BaseHTTPRequestHandler):
    """The first word of a path says what happens; what follows makes addresses differ."""

    def do_GET(self):
        path = unquote(self.path.lstrip("/"))
        with self.server.lock:
            self.server.asked[path] += 1
            times = self.server.asked[path]
        time.sleep(self.server.delay)
        word, _, rest = path.partition("-")
        with contextlib.suppress(ConnectionError):
            getattr(self, word, self.missing)(rest, times)

    def answer(self, data, kind="image/jpeg", status=200, **headers):
        self.send_response(status)
        for name, value in {"Content_Type": kind, "Content_Length": len(data), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)

    def good(self, rest, _):
        self.answer(jpeg(40, (sum(rest.encode()) * 37 % 256, 30, 30)))

    def any(self, rest, _):
        self.answer(self.server.files[rest])

    def film(self, rest, _):
        self.answer(self.server.files[rest], "video/mp4")

    def untyped(self, *_):
        self.answer(jpeg(40), None)

    def missing(self, *_):
        self.answer(b"gone", "text/html", 404)

    def status(self, rest, _):
        self.answer(b"", "text/html", int(rest.split("-")[0]))

    def busy(self, rest, times):
        """busy-2: the first two answers are errors."""
        failing = times <= int(rest.split("-")[0]) and not self.server.healed
        self.answer(*((b"", "text/html", 503) if failing else (jpeg(40),)), Retry_After=0)

    def page(self, *_):
        self.answer(jpeg(40), "text/html; charset=utf-8")

    def packed(self, *_):
        self.answer(zlib.compress(bytes(10**6)), Content_Encoding="deflate")

    def words(self, *_):
        self.answer(b"not a picture")

    def broken(self, *_):
        self.answer(jpeg(400)[:900])

    def small(self, *_):
        self.answer(jpeg(10))

    def bomb(self, *_):
        self.answer(bomb(), "image/png")

    def owner(self, *_):
        self.answer(jpeg(40), X_Robots_Tag="noarchive, NoAI")

    def announced(self, *_):
        self.answer(b"x", Content_Length=10**12)

    def short(self, *_):
        self.answer(jpeg(40), Content_Length=10**5)

    def endless(self, *_):
        self.answer(b"", Content_Length=None)
        while not self.server.ended:
            self.wfile.write(bytes(1 << 16))

    def drip(self, *_):
        self.answer(b"", Content_Length=10**5)
        self._drip(b"x")

    def slowhead(self, *_):
        self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        self._drip(b"X: y\r\n")

    def _drip(self, data):
        while not self.server.ended:
            self.wfile.write(data)
            time.sleep(0.02)

    def to(self, rest, _):
        self.answer(b"", "text/html", 302, Location=rest)

    def loop(self, rest, _):
        self.to(f"/loop-{rest}", 0)

    def log_message(self, *_):
        pass


class PictureServer(http.server.ThreadingHTTPServer):
    """`asked` counts requests by path; `healed` ends the troubles of the busy; `files` are what /any-NAME gives."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.asked = threading.Lock(), Counter()
        self.delay, self.healed, self.ended = 0.0, False, False
        self.files = {}

    @property
    def base(self):
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serving():
    httpd = PictureServer()
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield httpd
    finally:
        httpd.ended = True
        httpd.shutdown()
        httpd.server_close()
