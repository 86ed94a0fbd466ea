"""Network: a server on loopback that is slow, breaks off, lies or sends round in circles."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

from fault_suite.outcome import Outcome
from fault_suite.tally import Tally

NAME = "network"
BODY = b"CDF\x01" + bytes(range(256)) * 4000
# What the server does, the most requests it may be sent, and whether a file comes of it.
FAULTS = {
    "answers 404": ("404", 1, False),
    "answers 403": ("403", 1, False),
    "answers 500": ("500", 3, False),
    "answers 503": ("503", 3, False),
    "answers 503 twice": ("flaky", 3, True),
    "breaks off at the first byte": ("cut-0", 3, False),
    "breaks off in the middle": ("cut-500000", 3, False),
    "breaks off before the last byte": (f"cut-{len(BODY) - 1}", 3, False),
    "breaks off once": ("once", 2, True),
    "says nothing of the length and breaks off": ("chunks", 3, False),
    "an HTML page instead of data": ("page", 1, False),
    "an HTML page with status 200 after a redirect": ("to-page", 2, False),
    "nothing at all": ("empty", 3, False),
    "redirected in a circle": ("circle", 40, False),
    "redirected once": ("to-good", 2, True),
    "redirected to another kind of address": ("to-file", 1, False),
    "stalls": ("stall", 3, False),
    "sends a byte at a time": ("drip", 3, False),
}


class _Handler(BaseHTTPRequestHandler):
    """The first part of the address says what this server does; `asked` counts requests."""

    asked: Counter[str]
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        self.asked["all"] += 1
        self.asked[kind] += 1
        if kind.isdigit() or (kind == "flaky" and self.asked[kind] < 3):
            self._answer(int(kind) if kind.isdigit() else 503, b"")
        elif kind in ("circle", "to-page", "to-good", "to-file"):
            to = {"to-file": "file:///etc/hostname.nc"}.get(
                kind, f"/{kind.removeprefix('to-')}/a.nc"
            )
            self._answer(302, b"", Location=to)
        elif kind in ("page", "empty"):
            self._answer(200, b"<html>please log in</html>" if kind == "page" else b"")
        elif kind.startswith("cut-") or (kind == "once" and self.asked[kind] == 1):
            self._answer(200, BODY[: int(kind.partition("-")[2] or 500)], length=len(BODY))
        elif kind == "chunks":
            self.protocol_version = "HTTP/1.1"
            self._head(200, {"Transfer-Encoding": "chunked"})
            self.wfile.write(b"1000\r\n" + BODY[:0x1000] + b"\r\n1000\r\nhalf")
            self.close_connection = True
        elif kind == "slow":
            time.sleep(1.0)
            self._answer(200, BODY)
        elif kind in ("stall", "drip"):
            self._head(200, {"Content-Length": str(len(BODY))})
            self.wfile.write(BODY[:99])
            self.wfile.flush()
            for byte in range(40 if kind == "drip" else 4):
                time.sleep(0.1 if kind == "drip" else 1.0)
                if kind == "drip":
                    self.wfile.write(bytes([byte]))
        else:
            self._answer(200, BODY)

    def _answer(self, status: int, body: bytes, *, length: int | None = None, **more: str) -> None:
        self._head(status, {"Content-Length": str(len(body) if length is None else length), **more})
        self.wfile.write(body)

    def _head(self, status: int, fields: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not wait is no fault of the server."""


@contextmanager
def server() -> Iterator[tuple[str, type[_Handler]]]:
    """A server's address, and its handler, which counts the requests."""
    handler = type("Counting", (_Handler,), {"asked": Counter()})
    server = _Quiet(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()


def run(folder: Path) -> Outcome:
    """Ask for each kind of answer; what is left has to be whole and recorded, or nothing."""
    tally = Tally()
    answers(tally, folder)
    changed(tally, folder / "changed")
    tally.check("nobody listens", lambda: _fetch(folder / "nobody", "http://127.0.0.1:9/a.nc"))
    tally.check("no such host", lambda: _fetch(folder / "host", "http://no.such.host.invalid/a.nc"))
    return tally.outcome


def answers(tally: Tally, folder: Path, only: Sequence[str] | None = None) -> None:
    """What a server says.

    Args:
      only: of these faults.
    """
    patch = mock.patch.dict(os.environ, {"NO_PROXY": "127.0.0.1"})
    # A minute of silence is waited for; here a second is.
    short = mock.patch("gridcast.sources.download._READ", 0.5)
    with patch, short, server() as (host, handler):
        tally.control(_fetch(folder / "control", f"{host}/good/a.nc", whole=True))
        for name in FAULTS if only is None else only:
            kind, most, whole = FAULTS[name]
            handler.asked.clear()

            def judge(kind: str = kind, most: int = most, whole: bool = whole) -> str | None:
                wrong = _fetch(folder / kind, f"{host}/{kind}/a.nc", whole=whole)
                asked = handler.asked["all"]
                return wrong or (f"{asked} requests, at most {most}" if asked > most else None)

            tally.check(name, judge)


def changed(tally: Tally, cache: Path) -> None:
    """A file of the cache, or the record of its checksum, that is no longer what came."""
    from gridcast.errors import DataError
    from gridcast.sources.download import RECORD, download

    with mock.patch.dict(os.environ, {"NO_PROXY": "127.0.0.1"}), server() as (host, _):

        def again() -> Path:
            return download(f"{host}/good/a.nc", cache / "set", cache=cache)

        path = again()
        tally.control(None if again() == path else "another path")
        for name, file, content in (
            ("a flipped bit", path, bytes([BODY[0] ^ 1]) + BODY[1:]),
            ("cut off", path, BODY[:500]),
            ("emptied", path, b""),
            ("a damaged record", cache / RECORD, b"{"),
        ):
            whole = file.read_bytes()
            file.write_bytes(content)
            try:
                again()
                wrong = "it was taken"
            except DataError as error:
                wrong = None if str(file) in str(error) else f"an error without the file: {error}"
            tally.case(f"in the cache, {name}", wrong)
            file.write_bytes(whole)


def _fetch(cache: Path, address: str, *, whole: bool = False) -> str | None:
    """What is wrong with a download: it comes whole, or nothing is left and the error says why."""
    from gridcast.sources.download import DownloadError, download, verify

    began = time.monotonic()
    try:
        path = download(address, cache / "set", cache=cache, waits=(0.0, 0.0))
        failed = None
    except DownloadError as error:
        failed = str(error)
    if (seconds := time.monotonic() - began) > 15:
        return f"took {seconds:.0f} s"
    found = sorted(p.name for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")
    if not whole:
        return "a file was accepted" if failed is None else f"left: {found}" if found else None
    if failed is not None:
        return failed
    verify(path, cache)
    return None if path.read_bytes() == BODY else "other bytes than were sent"
