"""Deliberate breaks of gridcast, such as a careless change could make, for each class of faults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Break:
    """One text of one file replaced by another.

    Attributes:
      fault: the class that has to notice it.
      words: what is broken.
      file: below the package.
      old: the text; it has to be there exactly once.
      part: of `fault_suite.parts.PARTS`, what of the class is run.
    """

    fault: str
    words: str
    file: str
    old: str
    new: str
    part: str


_CHECKPOINTS, _DRAFTS = "training/checkpoints.py", "drafts.py"
_IN_PLACE = "yield draft\n        to_disk(draft)\n        os.replace(draft, path)"

BREAKS = (
    Break(
        "corrupt checkpoints",
        "checksums are not compared",
        _CHECKPOINTS,
        "            if found != expected:\n",
        "            if len(found) != len(expected):\n",
        "damaged checkpoints",
    ),
    Break(
        "corrupt checkpoints",
        "only the newest checkpoint is looked at",
        _CHECKPOINTS,
        "for path in paths:\n            try:",
        "for path in paths[:1]:\n            try:",
        "damaged checkpoints",
    ),
    Break(
        "concurrency",
        "a lock that another run holds is passed by",
        "locks.py",
        "if not _try_lock(file.fileno()):\n                raise",
        "if not _try_lock(file.fileno()) and not path.exists():\n                raise",
        "a held directory",
    ),
    Break(
        "concurrency",
        "files are written in place, not renamed when whole",
        _DRAFTS,
        _IN_PLACE,
        "yield path\n        to_disk(path)",
        "readers",
    ),
    Break(
        "concurrency",
        "each process has a lock of its own for a download",
        "sources/download.py",
        'cache / f"{folder.name}.lock"',
        'cache / f"{folder.name}.{os.getpid()}.lock"',
        "downloads",
    ),
    Break(
        "config",
        "nesting has no limit",
        "config/yaml_text.py",
        "if depth > MAX_DEPTH:",
        "if depth > MAX_VALUES:",
        "bombs",
    ),
    Break(
        "config",
        "text that is not UTF-8 is nobody's case",
        "config/loading.py",
        "except UnicodeDecodeError as error:",
        "except UnicodeEncodeError as error:",
        "bombs",
    ),
    Break(
        "config",
        "the line of a mistake is not told",
        "config/loading.py",
        'place = origin if mistake.line is None else f"{origin}:{mistake.line}"',
        "place = origin",
        "mutants",
    ),
    Break(
        "content",
        "fill values that are not declared are taken for values",
        "sources/values.py",
        "    if fill is not None:\n",
        "    if fill is not None and not np.isfinite(fill):\n",
        "series",
    ),
    Break(
        "content",
        "units are not held against the values",
        "sources/values.py",
        'if (middle > 150) == (spelling(units) == "degC"):',
        "if not np.isfinite(middle):",
        "series",
    ),
    Break(
        "content",
        "a mask that changes is not refused",
        "frames/gaps.py",
        "    if not holes.any():\n        return",
        "    if not holes.all():\n        return",
        "series",
    ),
    Break(
        "content",
        "longitudes below 0 stay there",
        "sources/axes.py",
        "lon = np.round(np.round(raw % 360.0, 6) % 360.0, 6)",
        "lon = np.round(raw, 6)",
        "series",
    ),
    Break(
        "crashes",
        "files are written in place, not renamed when whole",
        _DRAFTS,
        _IN_PLACE,
        "yield path\n        to_disk(path)",
        "killed while writing",
    ),
    Break(
        "crashes",
        "a checkpoint is removed before the one that replaces it is there",
        _CHECKPOINTS,
        "            final.rename(before)\n",
        "            shutil.rmtree(final)\n",
        "killed while writing",
    ),
    Break(
        "crashes",
        "a resumed run forgets the optimizer's memory",
        "resuming.py",
        'checkpoints.fill(empty.optimizer, saved.arrays["optimizer"])',
        "empty.optimizer",
        "stopped runs",
    ),
    Break(
        "disk full",
        "what is half written is left",
        _DRAFTS,
        "            draft.unlink(missing_ok=True)\n",
        "            pass\n",
        "a full disk",
    ),
    Break(
        "disk full",
        "a checkpoint that could not be replaced does not get its name back",
        _CHECKPOINTS,
        "        _put_back(directory)\n        raise",
        "        raise",
        "a full disk",
    ),
    Break(
        "files",
        "files are written without checksums",
        "sources/netcdf.py",
        'how |= {"fletcher32": True}',
        'how |= {"fletcher32": False}',
        "flipped bytes",
    ),
    Break(
        "files",
        "the header of NetCDF-3 files is believed",
        "sources/files.py",
        'if head.startswith(b"CDF"):',
        'if head.startswith(b"CDF\\x03"):',
        "cut off",
    ),
    Break(
        "files",
        "a file that is written to while it is read is not noticed",
        "sources/files.py",
        "(before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)",
        "before.st_ino != after.st_ino",
        "other files",
    ),
    Break(
        "long use",
        "the compiled forecast is not kept",
        "forecasting.py",
        "    @cached_property\n    def _run(",
        "    @property\n    def _run(",
        "forecasts",
    ),
    Break(
        "long use",
        "files that were written stay open",
        _DRAFTS,
        "        os.close(descriptor)\n",
        "        pass\n",
        "forecasts",
    ),
    Break(
        "network",
        "a web page is taken for data",
        "sources/download.py",
        "        _require_netcdf(partial)\n",
        "",
        "servers",
    ),
    Break(
        "network",
        "what is not there is asked for three times",
        "sources/download.py",
        "response.status_code >= 500",
        "response.status_code >= 400",
        "servers",
    ),
    Break(
        "network",
        "half a download is left",
        "sources/download.py",
        "    finally:\n        partial.unlink(missing_ok=True)\n",
        "    finally:\n        pass\n",
        "servers",
    ),
    Break(
        "network",
        "the checksum of a downloaded file is not compared",
        "sources/download.py",
        '    if found != entry["sha256"]:\n',
        '    if "sha256" not in entry:\n',
        "the cache",
    ),
    Break(
        "numerics",
        "a step that is not finite is taken",
        "training/step.py",
        "jax.lax.cond(good, lambda: made, lambda: kept)",
        "jax.lax.cond(good, lambda: made, lambda: made)",
        "steps",
    ),
    Break(
        "numerics",
        "weights of which some are not finite are saved",
        _CHECKPOINTS,
        "not np.isfinite(array).all()",
        "not np.isfinite(array).any()",
        "spoiled weights",
    ),
    Break(
        "numerics",
        "forecasts of any size are written",
        "labelling.py",
        "_BEYOND = 1e6 ",
        "_BEYOND = np.inf ",
        "spoiled weights",
    ),
    Break(
        "reproducibility",
        "the order of the windows does not come from the seed",
        "frames/windows.py",
        "np.random.default_rng([seed, epoch])",
        "np.random.default_rng()",
        "trained twice",
    ),
    Break(
        "reproducibility",
        "the sums of the data leave out the dates",
        "provenance.py",
        'hashlib.sha256(" ".join(map(str, one["time"].values)).encode())',
        "hashlib.sha256()",
        "trained twice",
    ),
    Break(
        "trust",
        "pickles in checkpoints are loaded",
        _CHECKPOINTS,
        "np.load(path / name, allow_pickle=False)",
        "np.load(path / name, allow_pickle=True)",
        "poison",
    ),
    Break(
        "trust",
        "a checkpoint may name files outside of it",
        _CHECKPOINTS,
        "if Path(name).name != name:",
        "if not Path(name).name:",
        "poison",
    ),
    Break(
        "trust",
        "text is not escaped in reports",
        "html.py",
        "one if isinstance(one, Html) else escape(one) for one in parts",
        "one for one in parts",
        "told",
    ),
    Break(
        "trust",
        "results name the folder of the data",
        "opening.py",
        "names = [Path(path).name for path in",
        "names = [str(path) for path in",
        "told",
    ),
)
