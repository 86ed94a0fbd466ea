"""Deliberate breaks of gridcast, such as a careless change could make, for each class of faults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Break:
    """One text of one file replaced by another.

    Attributes:
      fault: the class that has to notice it.
      words: what is broken.
      part: of `fault_suite.parts.PARTS`, what of the class is run.
      file: below the package.
      old: the text; it has to be there exactly once.
    """

    fault: str
    words: str
    part: str
    file: str
    old: str
    new: str


_CHECKPOINTS, _DRAFTS = "training/checkpoints.py", "drafts.py"
_DOWNLOAD = "sources/download.py"
_IN_PLACE = "yield draft\n        to_disk(draft)\n        os.replace(draft, path)"

# fmt: off
_TABLE = (
    ("corrupt checkpoints", "checksums are not compared",
     "damaged checkpoints", _CHECKPOINTS,
     "            if found != expected:\n", "            if len(found) != len(expected):\n"),
    ("corrupt checkpoints", "only the newest checkpoint is looked at",
     "damaged checkpoints", _CHECKPOINTS,
     "for path in paths:\n            try:", "for path in paths[:1]:\n            try:"),
    ("concurrency", "a lock that another run holds is passed by",
     "a held directory", "locks.py",
     "if not _try_lock(file.fileno()):\n                raise",
     "if not _try_lock(file.fileno()) and not path.exists():\n                raise"),
    ("concurrency", "files are written in place, not renamed when whole",
     "readers", _DRAFTS, _IN_PLACE, "yield path\n        to_disk(path)"),
    ("concurrency", "each process has a lock of its own for a download",
     "downloads", _DOWNLOAD,
     'cache / f"{folder.name}.lock"', 'cache / f"{folder.name}.{os.getpid()}.lock"'),
    ("config", "nesting has no limit",
     "bombs", "config/yaml_text.py", "if depth > MAX_DEPTH:", "if depth > MAX_VALUES:"),
    ("config", "text that is not UTF-8 is nobody's case",
     "bombs", "config/loading.py",
     "except UnicodeDecodeError as error:", "except UnicodeEncodeError as error:"),
    ("config", "the line of a mistake is not told",
     "mutants", "config/loading.py",
     'place = origin if mistake.line is None else f"{origin}:{mistake.line}"', "place = origin"),
    ("content", "fill values that are not declared are taken for values",
     "series", "sources/values.py",
     "    if fill is not None:\n", "    if fill is not None and not np.isfinite(fill):\n"),
    ("content", "units are not held against the values",
     "series", "sources/values.py",
     'if (middle > 150) == (spelling(units) == "degC"):', "if not np.isfinite(middle):"),
    ("content", "a mask that changes is not refused",
     "series", "frames/gaps.py",
     "    if not holes.any():\n        return", "    if not holes.all():\n        return"),
    ("content", "longitudes below 0 stay there",
     "series", "sources/axes.py",
     "lon = np.round(np.round(raw % 360.0, 6) % 360.0, 6)", "lon = np.round(raw, 6)"),
    ("crashes", "files are written in place, not renamed when whole",
     "killed while writing", _DRAFTS, _IN_PLACE, "yield path\n        to_disk(path)"),
    ("crashes", "a checkpoint is removed before the one that replaces it is there",
     "killed while writing", _CHECKPOINTS,
     "            final.rename(before)\n", "            shutil.rmtree(final)\n"),
    ("crashes", "a resumed run forgets the optimizer's memory",
     "stopped runs", "resuming.py",
     'checkpoints.fill(empty.optimizer, saved.arrays["optimizer"])', "empty.optimizer"),
    ("disk full", "what is half written is left",
     "a full disk", _DRAFTS, "            draft.unlink(missing_ok=True)\n", "            pass\n"),
    ("disk full", "a checkpoint that could not be replaced does not get its name back",
     "a full disk", _CHECKPOINTS, "        _put_back(directory)\n        raise", "        raise"),
    ("files", "files are written without checksums",
     "flipped bytes", "sources/netcdf.py",
     'how |= {"fletcher32": True}', 'how |= {"fletcher32": False}'),
    ("files", "the header of NetCDF-3 files is believed",
     "cut off", "sources/files.py",
     'if head.startswith(b"CDF"):', 'if head.startswith(b"CDF\\x03"):'),
    ("files", "a file that is written to while it is read is not noticed",
     "other files", "sources/files.py",
     "(before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)",
     "before.st_ino != after.st_ino"),
    ("long use", "the compiled forecast is not kept",
     "forecasts", "forecasting.py",
     "    @cached_property\n    def _run(", "    @property\n    def _run("),
    ("long use", "files that were written stay open",
     "forecasts", _DRAFTS, "        os.close(descriptor)\n", "        pass\n"),
    ("network", "a web page is taken for data",
     "servers", _DOWNLOAD, "        _require_netcdf(partial)\n", ""),
    ("network", "what is not there is asked for three times",
     "servers", _DOWNLOAD, "response.status_code >= 500", "response.status_code >= 400"),
    ("network", "half a download is left",
     "servers", _DOWNLOAD,
     "    finally:\n        partial.unlink(missing_ok=True)\n", "    finally:\n        pass\n"),
    ("network", "the checksum of a downloaded file is not compared",
     "the cache", _DOWNLOAD,
     '    if found != entry["sha256"]:\n', '    if "sha256" not in entry:\n'),
    ("numerics", "a step that is not finite is taken",
     "steps", "training/step.py",
     "jax.lax.cond(good, lambda: made, lambda: kept)",
     "jax.lax.cond(good, lambda: made, lambda: made)"),
    ("numerics", "weights of which some are not finite are saved",
     "spoiled weights", _CHECKPOINTS,
     "not np.isfinite(array).all()", "not np.isfinite(array).any()"),
    ("numerics", "forecasts of any size are written",
     "spoiled weights", "labelling.py", "_BEYOND = 1e6 ", "_BEYOND = np.inf "),
    ("reproducibility", "the order of the windows does not come from the seed",
     "trained twice", "frames/windows.py",
     "np.random.default_rng([seed, epoch])", "np.random.default_rng()"),
    ("reproducibility", "the sums of the data leave out the dates",
     "trained twice", "provenance.py",
     'hashlib.sha256(" ".join(map(str, one["time"].values)).encode())', "hashlib.sha256()"),
    ("trust", "pickles in checkpoints are loaded",
     "poison", _CHECKPOINTS,
     "np.load(path / name, allow_pickle=False)", "np.load(path / name, allow_pickle=True)"),
    ("trust", "a checkpoint may name files outside of it",
     "poison", _CHECKPOINTS, "if Path(name).name != name:", "if not Path(name).name:"),
    ("trust", "text is not escaped in reports",
     "told", "html.py",
     "one if isinstance(one, Html) else escape(one) for one in parts", "one for one in parts"),
    ("trust", "results name the folder of the data",
     "told", "opening.py",
     "names = [Path(path).name for path in", "names = [str(path) for path in"),
)
# fmt: on

BREAKS = tuple(Break(*row) for row in _TABLE)
