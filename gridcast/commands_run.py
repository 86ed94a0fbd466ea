"""`gridcast forecast`, `evaluate`, `export` and `report`: what is done with trained runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from gridcast.arguments import add_json, named, number
from gridcast.errors import ConfigError
from gridcast.imports import uncollected


def add(commands: argparse._SubParsersAction) -> None:
    """Add these commands."""
    parser = commands.add_parser(
        "forecast",
        help="forecast with a trained run",
        description="Forecast with a trained run and write CF NetCDF.",
    )
    _add_run(parser)
    parser.add_argument(
        "--leads",
        type=number("a number of steps", least=1),
        help="steps ahead; default: as trained",
    )
    parser.add_argument("--start", metavar="DATE", help="last date to use; default: of the data")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="NetCDF, or zarr for a name.zarr; default: in the run's directory",
    )
    parser.set_defaults(run=_forecast)

    parser = commands.add_parser(
        "evaluate",
        help="judge a trained run beside the reference forecasts",
        description="Judge a trained run on its test dates, beside the reference forecasts.",
    )
    _add_run(parser)
    parser.add_argument(
        "--forecast",
        metavar="[NAME=]FILE",
        type=named,
        action="append",
        default=[],
        help="forecasts of another system, in the same table; may be repeated",
    )
    parser.add_argument(
        "--regrid", action="store_true", help="interpolate forecasts on another grid"
    )
    add_json(parser)
    parser.set_defaults(run=_evaluate)

    parser = commands.add_parser(
        "export",
        help="write a trained run as a program that needs jax alone",
        description="Write a trained run as a program that needs jax alone: see README.",
    )
    parser.add_argument("directory", metavar="RUN", help="directory of a run, for example runs/sst")
    parser.add_argument("--output", metavar="DIR", help="default: export, in the run's directory")
    parser.set_defaults(run=_export)

    parser = commands.add_parser(
        "report",
        help="write what runs are worth as one HTML page",
        description="Write what a run, or several side by side, are worth as one HTML page.",
    )
    parser.add_argument("directories", metavar="RUN", nargs="+", help="directories of runs")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="default: report.html in the run's directory; of several runs: here",
    )
    parser.set_defaults(run=_report)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="RUN", help="directory of a run, for example runs/sst")
    parser.add_argument(
        "--data", metavar="PATH", nargs="+", help="NetCDF files or globs; default: as trained"
    )


def _forecast(arguments: argparse.Namespace) -> None:
    with uncollected():
        from gridcast import trained

    path = trained.run_forecast(
        arguments.directory, arguments.data, arguments.leads, arguments.start, arguments.output
    )
    print(path)


def _export(arguments: argparse.Namespace) -> None:
    from gridcast.exporting.directory import export_run
    from gridcast.run import Run

    print(export_run(Run.load(arguments.directory), arguments.output))


def _evaluate(arguments: argparse.Namespace) -> None:
    with uncollected():
        from gridcast import trained

    others = dict(arguments.forecast)
    if len(others) < len(arguments.forecast):
        raise ConfigError("two forecasts have one name\n  fix: --forecast NAME=FILE")
    asked = (arguments.directory, arguments.data, others, arguments.regrid)
    if not arguments.json:
        print(trained.run_evaluation(*asked))
        return
    from gridcast.printing import strict_json
    from gridcast.verification.tables import as_plain

    print(strict_json({"scores": [as_plain(scores) for scores in trained.judged(*asked)]}))


def _report(arguments: argparse.Namespace) -> None:
    from gridcast.report.page import NAME, write_report

    runs = arguments.directories
    place = Path(runs[0]) / NAME if len(runs) == 1 else Path(NAME)
    print(write_report(runs, arguments.output or place))
