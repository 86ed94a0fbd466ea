"""`gridcast data`: list the catalog, get data sets, prepare a store, simulate data."""

from __future__ import annotations

import argparse
from pathlib import Path

from gridcast.arguments import add_json, add_overrides, number, shape
from gridcast.printing import strict_json, table


def add(commands: argparse._SubParsersAction) -> None:
    """Add `data list`, `get`, `prepare` and `simulate` to the commands."""
    parser = commands.add_parser(
        "data",
        help="list, get, prepare and simulate data sets",
        description="List, get, prepare and simulate data sets.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="the catalog, and what of it is on this machine")
    add_json(listing)
    listing.set_defaults(run=_list)

    getting = actions.add_parser("get", help="download data sets into the cache")
    getting.add_argument("names", metavar="NAME", nargs="+", help="as in `gridcast data list`")
    getting.set_defaults(run=_get)

    preparing = actions.add_parser(
        "prepare",
        help="write the series of a config as a store that training streams from",
        description="Write the series of a config as a store for frames.storage: stream. Run again "
        "after an interruption, it goes on.",
    )
    preparing.add_argument("config", metavar="CONFIG", help="YAML file of the experiment")
    add_overrides(preparing)
    preparing.add_argument("--output", metavar="STORE", help="default: runs/NAME.zarr")
    preparing.set_defaults(run=_prepare)

    simulating = actions.add_parser(
        "simulate",
        help="write simulated data with a known limit of predictability",
        description="Write simulated data with a known limit of predictability.",
    )
    simulating.add_argument("--kind", choices=["ocean", "rain"], default="ocean")
    simulating.add_argument("--years", type=number(least=1), default=60, help="length, default 60")
    simulating.add_argument(
        "--grid", metavar="LATxLON", type=shape, default=(45, 90), help="cells, default 45x90"
    )
    simulating.add_argument(
        "--seed", type=number(least=0), default=0, help="of the noise, default 0"
    )
    simulating.add_argument("output", metavar="OUT", help="NetCDF file to write")
    simulating.set_defaults(run=_simulate)


def _list(arguments: argparse.Namespace) -> None:
    from gridcast.sources.catalog import cache_dir, catalog

    datasets = list(catalog().values())
    files = {d.name: files_here(d.name) for d in datasets}
    if arguments.json:
        listed = [
            {
                "name": d.name,
                "title": d.title,
                "variable": d.variable,
                "units": d.units,
                "licence": d.licence,
                "files": [str(path) for path in files[d.name] or ()],
                "here": where(d.name, files[d.name]),
            }
            for d in datasets
        ]
        print(strict_json({"data": listed, "cache": str(cache_dir())}))
        return
    lines = table(
        ("name", "variable", "units", "here"),
        [(d.name, d.variable, d.units, where(d.name, files[d.name])) for d in datasets],
    )
    print(lines[0])
    for line, dataset in zip(lines[1:], datasets, strict=True):
        print(f"{line}\n    {dataset.title}\n    {dataset.licence}")
    print(f"downloads are kept in {cache_dir()}")


def files_here(name: str) -> list[Path] | None:
    """The files of a data set on this machine; None where they are damaged."""
    from gridcast.errors import DataError
    from gridcast.sources.catalog import find, search_path

    search_path()  # a mistake in GRIDCAST_DATA is no property of one data set
    try:
        return find(name)
    except DataError:
        return None


def where(name: str, files: list[Path] | None) -> str:
    """Where a data set is: a directory on this machine, or how to get it."""
    from gridcast.sources.catalog import entry

    if files is None:
        return "damaged, see data get"
    if files:
        return f"{len(files)} file{'s' * (len(files) > 1)} in {files[0].parent}"
    return "no, data get" if entry(name).download else "no, see page"


def _get(arguments: argparse.Namespace) -> None:
    from gridcast.sources.catalog import entry, get

    datasets = [entry(name) for name in arguments.names]  # a slip in the last, before the first
    for dataset in datasets:
        for path in get(dataset):
            print(path)
        print(f"  cite: {dataset.citation}\n  licence: {dataset.licence}")


def _prepare(arguments: argparse.Namespace) -> None:
    from gridcast.config import load_config
    from gridcast.storing import prepare_store

    config = load_config(arguments.config, arguments.overrides)
    path = Path(arguments.output or f"runs/{Path(arguments.config).stem}.zarr")
    prepare_store(config, path)
    print(f"gridcast train {arguments.config} data.path={path} frames.storage=stream")


def _simulate(arguments: argparse.Namespace) -> None:
    from gridcast.sources.simulated import write_simulation

    write_simulation(
        Path(arguments.output),
        kind=arguments.kind,
        years=arguments.years,
        shape=arguments.grid,
        seed=arguments.seed,
    )
    print(arguments.output)
