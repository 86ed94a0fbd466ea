"""One file from an address into a folder: whole, alone, and with its SHA-256 on record."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gridcast.drafts import sha256
from gridcast.errors import DataError
from gridcast.locks import waiting_for

log = logging.getLogger(__name__)

RECORD = "checksums.json"
_CONNECT, _READ = 5.0, 60.0  # seconds: no network is known soon, a slow server is waited for
_MAGIC = (b"CDF", b"\x89HDF")  # NetCDF 3, NetCDF 4


class DownloadError(DataError):
    """The address gave no usable file; the message is one line that says why."""


class _Passing(Exception):  # noqa: N818  (a reason to try again, not an error of ours)
    """A failure that may be gone a moment later."""


def download(
    address: str, folder: Path, *, cache: Path, waits: Sequence[float] = (2.0, 10.0)
) -> Path:
    """Fetch `address` into `folder`, unless it is there already.

    The file has its final name only when it is whole and its checksum is on record. Several
    processes may ask at once: one fetches, the others wait for it.

    Args:
      address: http or https; its last part is the file's name.
      folder: below `cache`; made when needed.
      cache: holds the record of checksums, and locks.
      waits: seconds before each further try after a passing failure.

    Returns:
      The file's path.

    Raises:
      DownloadError: no network, no such file, not NetCDF, or incomplete at every try.
      DataError: the folder cannot be written, or a file there is not the recorded one.
    """
    final = folder / Path(urlsplit(address).path).name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with waiting_for(cache / f"{folder.name}.lock"):
            if final.exists():
                verify(final, cache)
                return final
            _fetch(address, final, cache, waits)
    except OSError as error:
        raise DataError(
            f"cannot write {final}: {error.strerror or error}\n"
            "  fix: free some space, or name another directory in GRIDCAST_CACHE"
        ) from None
    return final


def verify(path: Path, cache: Path) -> None:
    """Compare a file with its recorded checksum; a file never downloaded has none and passes.

    Raises:
      DataError: naming the file, the expected and the found SHA-256, and the fix.
    """
    entry = _record(cache).get(path.relative_to(cache).as_posix())
    if entry is None:
        return
    found = sha256(path)
    if found != entry["sha256"]:
        raise DataError(
            f"{path} is not the file that was downloaded on {entry['date']}\n"
            f"  expected: sha256 {entry['sha256']}\n"
            f"  found: sha256 {found}\n"
            f"  fix: delete the file, then `gridcast data get {path.parent.name}`"
        )


def _fetch(address: str, final: Path, cache: Path, waits: Sequence[float]) -> None:
    for leftover in final.parent.glob(".*.partial"):  # of a killed process: the lock is ours
        leftover.unlink()
    partial = final.with_name(f".{final.name}.partial")
    try:
        for wait in (*waits, None):
            try:
                _transfer(address, partial)
                break
            except _Passing as failure:
                if wait is None:
                    raise DownloadError(f"{failure}, {len(waits) + 1} times") from None
                log.warning("%s: %s; trying again in %g s", address, failure, wait)
                time.sleep(wait)
        _require_netcdf(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        # The record first: a file under its final name is never without its checksum.
        _remember(final, address, partial, cache)
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


def _transfer(address: str, partial: Path) -> None:
    """One try, from the first byte: the producer's file may have changed since the last one."""
    import pooch  # they take a quarter of a second, which nobody waits for whose data are here
    import requests

    fetch = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), chunk_size=1 << 16, timeout=(_CONNECT, _READ)
    )
    try:
        fetch(address, str(partial), None)
    except requests.HTTPError as error:
        response = error.response
        assert response is not None  # raise_for_status gives it
        answer = f"the server answered {response.status_code} {response.reason}"
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise _Passing(answer) from None
        raise DownloadError(answer) from None
    except (requests.exceptions.SSLError, requests.exceptions.ProxyError) as error:
        raise DownloadError(f"no connection: {_short(error)}") from None
    except requests.exceptions.ConnectTimeout:
        raise DownloadError(f"no connection within {_CONNECT:g} seconds") from None
    except requests.exceptions.ChunkedEncodingError:
        raise _Passing("the transfer broke off") from None
    except requests.ConnectionError as error:
        if "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error):
            raise DownloadError(f"no connection: {_short(error)}") from None
        raise _Passing("the connection broke off") from None
    except requests.Timeout:
        raise _Passing(f"no answer for {_READ:g} seconds") from None
    except requests.RequestException as error:
        raise DownloadError(_short(error)) from None


def _short(error: Exception) -> str:
    reason = getattr(error.args[0], "reason", error) if error.args else error
    return str(reason).splitlines()[0].rpartition(": ")[2][:160] or type(error).__name__


def _require_netcdf(path: Path) -> None:
    """A log-in page of a hotel's network comes with status 200, too."""
    with path.open("rb") as file:
        start = file.read(16)
    if not start.startswith(_MAGIC):
        raise DownloadError(f"what came is not NetCDF, it starts with {start!r}")


def _remember(final: Path, address: str, partial: Path, cache: Path) -> None:
    name = final.relative_to(cache).as_posix()
    entry = {
        "sha256": sha256(partial),
        "bytes": partial.stat().st_size,
        "address": address,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }
    with waiting_for(cache / f"{RECORD}.lock"):
        record = _record(cache)
        before = record.get(name)
        if before is not None and before["sha256"] != entry["sha256"]:
            log.warning("%s has changed at the producer since %s", name, before["date"])
        record[name] = entry
        handle, temporary = tempfile.mkstemp(dir=cache, prefix=f".{RECORD}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, cache / RECORD)


def _record(cache: Path) -> dict[str, dict[str, Any]]:
    path = cache / RECORD
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        record = json.loads(text)
        if all(
            isinstance(e["sha256"], str) and isinstance(e["date"], str) for e in record.values()
        ):
            return record
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise DataError(
        f"{path} is damaged: the checksums of downloaded files cannot be read\n"
        f"  fix: delete {path.parent} and get the data again"
    )
