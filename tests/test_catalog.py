"""The catalog: every file has one owner; a download is whole, checked and alone, or an error."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import gridcast.sources.catalog as catalog_module
from gridcast.errors import DataError
from gridcast.sources.catalog import DataNotFound, DataSet, cache_dir, catalog, entry, find, get
from gridcast.sources.catalog import locate as locate_data
from gridcast.sources.download import DownloadError, download

BODY = b"CDF\x01" + bytes(range(256)) * 4000


class Handler(BaseHTTPRequestHandler):
    """The first part of the address says how this server fails; `asked` counts the requests."""

    asked: Counter[str]

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        self.asked[kind] += 1
        early = self.asked[kind] < 3
        status = {"missing": 404, "down": 503}.get(kind, 503 if kind == "flaky" and early else 200)
        body = {"portal": b"<html>please log in</html>"}.get(kind, BODY if status == 200 else b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "slow":
            time.sleep(0.3)
        if kind == "truncated" or (kind == "once" and self.asked[kind] == 1):
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server():
    class Counting(Handler):
        asked = Counter()  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def make(server, tmp_path, monkeypatch):
    """A data set of the local server, with an empty cache and no directory of data."""
    monkeypatch.setenv("GRIDCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("GRIDCAST_DATA", raising=False)

    def make(kind: str = "good", address: str | None = None) -> DataSet:
        host = f"http://127.0.0.1:{server.server_port}"
        return DataSet(
            name="demo",
            title="A demonstration",
            kind="series",
            variables=("sst",),
            units="degC",
            producer="nobody",
            citation="Nobody 2020",
            licence="free",
            page=host,
            download=address or f"{host}/{kind}/demo.nc",
            patterns=("demo.nc", "demo_*.nc"),
        )

    return make


def files_below(path: Path) -> set[str]:
    return {p.name for p in path.rglob("*") if p.is_file() and p.suffix != ".lock"}


def fetch(dataset: DataSet, waits: tuple[float, ...] = (0.0, 0.0)) -> Path:
    assert dataset.download is not None
    root = cache_dir()
    return download(dataset.download, root / dataset.name, cache=root, waits=waits)


def test_every_file_of_the_data_directory_belongs_to_exactly_one_data_set():
    directory = os.environ.get("GRIDCAST_DATA")
    if not directory:
        pytest.skip("GRIDCAST_DATA is not set")
    owners: Counter[str] = Counter()
    for dataset in catalog().values():
        owners.update(p.name for p in dataset.files_in(Path(directory)))
    present = [p.name for p in Path(directory).glob("*.nc")]
    assert {name: owners[name] for name in present} == dict.fromkeys(present, 1)
    years = [p.stem[-9:] for p in find("ersst-v5")]
    assert years == ["1880-1949", "1950-2012"]


def test_entries_are_complete_and_recognise_what_they_download():
    assert {"ersst-v5", "oisst-v2.1-daily", "gpcp-monthly", "chirps-monthly", "relief"} <= set(
        catalog()
    )
    for name, dataset in catalog().items():
        for text in (dataset.title, dataset.producer, dataset.citation, dataset.licence):
            assert text.strip(), name
        assert dataset.page.startswith("http")
        assert dataset.variables
        assert (dataset.download is None) != (dataset.instead is None), name


def test_what_is_downloaded_is_found_again_by_its_patterns(tmp_path):
    for name, dataset in catalog().items():
        if dataset.download is not None:
            file = tmp_path / name / dataset.download.rpartition("/")[2]
            file.parent.mkdir()
            file.touch()
            assert dataset.files_in(file.parent) == [file]


def test_an_unknown_name_gets_the_nearest_and_all_names():
    with pytest.raises(
        DataError, match=r"'erst-v5'.*\n  did you mean: ersst-v5\n  known: .*relief"
    ):
        entry("erst-v5")


def test_directories_are_searched_in_order_and_layouts_are_not_mixed(make, tmp_path, monkeypatch):
    first, second, third = (tmp_path / name for name in "abc")
    for directory, names in ((first, ["x.nc"]), (second, ["demo_2.nc", "Demo_1.nc"]),
                             (third, ["demo.nc", "demo_9.nc"])):  # fmt: skip
        directory.mkdir()
        for name in names:
            (directory / name).touch()
    monkeypatch.setenv("GRIDCAST_DATA", os.pathsep.join(map(str, (first, second, third))))
    assert find(make()) == [second / "Demo_1.nc", second / "demo_2.nc"]
    monkeypatch.setenv("GRIDCAST_DATA", os.pathsep.join(map(str, (third, second))))
    assert find(make()) == [third / "demo.nc"]
    monkeypatch.setenv("GRIDCAST_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"GRIDCAST_DATA names .*nowhere, which is no directory"):
        find(make())


def test_the_cache_is_where_the_environment_says_else_in_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setenv("GRIDCAST_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("GRIDCAST_CACHE")
    package = Path(catalog_module.__file__).parents[1]
    if (package.parent / "pyproject.toml").is_file():
        assert cache_dir() == package.parent / "data" / "cache"
    else:
        assert package.parent not in cache_dir().parents


def test_a_download_is_whole_recorded_and_not_repeated(make, server):
    dataset = make()
    (path,) = locate_data(dataset)
    assert path.read_bytes() == BODY
    record = json.loads((cache_dir() / "checksums.json").read_text())
    assert record["demo/demo.nc"]["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert record["demo/demo.nc"]["address"] == dataset.download
    assert find(dataset) == get(dataset) == locate_data(dataset) == [path]
    assert fetch(dataset) == path
    assert server.RequestHandlerClass.asked["good"] == 1
    assert files_below(cache_dir()) == {"demo.nc", "checksums.json"}


def test_passing_failures_are_tried_again_from_the_start(make, server):
    for kind, requests in (("flaky", 3), ("once", 2)):
        path = fetch(make(kind))
        assert path.read_bytes() == BODY
        assert server.RequestHandlerClass.asked[kind] == requests
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "requests", "reason"),
    [
        ("truncated", 3, "broke off, 3 times"),
        ("down", 3, "answered 503 .*3 times"),
        ("missing", 1, "answered 404"),
        ("portal", 1, "not NetCDF.*<html"),
    ],
)
def test_what_is_not_whole_or_not_netcdf_never_gets_its_name(make, server, kind, requests, reason):
    dataset = make(kind)
    with pytest.raises(DownloadError, match=reason):
        fetch(dataset)
    assert server.RequestHandlerClass.asked[kind] == requests
    assert files_below(cache_dir()) == set()
    assert find(dataset) == []


def test_without_network_the_error_comes_soon_and_says_what_to_do(make):
    dataset = make(address="http://127.0.0.1:9/demo.nc")  # the discard port: nobody listens
    started = time.monotonic()
    with pytest.raises(DataNotFound) as caught:
        locate_data(dataset)
    assert time.monotonic() - started < 3
    text = str(caught.value)
    for part in ("no connection", "127.0.0.1:9/demo.nc", "gridcast data get demo", "Nobody 2020",
                 "GRIDCAST_DATA is not set", "data.offline=simulated"):  # fmt: skip
        assert part in text


def test_a_set_without_one_file_says_how_to_get_it(make):
    with pytest.raises(
        DataNotFound, match=r"no single file to download\n  how to get it: .*a year"
    ):
        locate_data("oisst-v2.1-daily")


def test_a_file_that_changed_after_its_download_is_refused(make):
    dataset = make()
    (path,) = get(dataset)
    assert find(dataset) == [path]  # the control
    damaged = bytearray(BODY)
    damaged[5000] ^= 1
    path.write_bytes(damaged)
    for use in (find, get, locate_data):
        with pytest.raises(DataError) as caught:
            use(dataset)
        assert not isinstance(caught.value, DataNotFound)  # simulated data must not hide this
        for part in (str(path), hashlib.sha256(BODY).hexdigest(),
                     hashlib.sha256(damaged).hexdigest(), "gridcast data get demo"):  # fmt: skip
            assert part in str(caught.value)
    path.unlink()
    assert get(dataset)[0].read_bytes() == BODY


def test_a_damaged_record_of_checksums_is_told(make):
    get(make())
    (cache_dir() / "checksums.json").write_text("{'")
    with pytest.raises(DataError, match=r"checksums\.json is damaged"):
        find(make())


def test_two_that_ask_at_once_fetch_once(make, server):
    dataset = make("slow")
    results: list[Path] = []
    threads = [threading.Thread(target=lambda: results.append(fetch(dataset))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert set(results) == {cache_dir() / "demo" / "demo.nc"}
    assert results[0].read_bytes() == BODY
    assert server.RequestHandlerClass.asked["slow"] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="holds the lock by flock")
def test_a_lock_is_waited_for_and_taken_over_when_its_holder_is_killed(make):
    folder = cache_dir() / "demo"
    folder.mkdir(parents=True)
    (folder / ".demo.nc.partial").write_bytes(BODY[:100])
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a+b'); "
        "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(cache_dir() / "demo.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        waiting = threading.Thread(target=fetch, args=(make(),))
        waiting.start()
        waiting.join(0.4)
        assert waiting.is_alive()
        assert not (folder / "demo.nc").exists()
        holder.kill()
        waiting.join(5)
    assert (folder / "demo.nc").read_bytes() == BODY
    assert files_below(cache_dir()) == {"demo.nc", "checksums.json"}


def test_a_cache_that_cannot_be_written_is_told(make, tmp_path):
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(DataError, match=r"cannot write .*demo\.nc.*\n  fix: .*GRIDCAST_CACHE"):
        get(make())
