"""`gridcast config`, `runs`, `compare`, `doctor`: what is set, what is there, if all is well."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from gridcast.arguments import add_json, add_overrides
from gridcast.printing import strict_json, table

if TYPE_CHECKING:
    from gridcast.run_list import Skill


def add(commands: argparse._SubParsersAction) -> None:
    """Add these commands."""
    parser = commands.add_parser(
        "config",
        help="show an experiment with all defaults, or the schema of all experiments",
        description="Show an experiment with all defaults, or the schema of all experiments.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    showing = actions.add_parser(
        "show",
        help="every setting with its default and its meaning, as YAML",
        description="Every setting with its default and its meaning, as YAML that trains the same.",
    )
    showing.add_argument("config", metavar="CONFIG", help="YAML file of the experiment")
    add_overrides(showing)
    showing.set_defaults(run=_show)
    schema = actions.add_parser("schema", help="JSON Schema of the settings, for editors")
    schema.set_defaults(run=_schema)

    parser = commands.add_parser(
        "runs",
        help="list runs with their scores",
        description="List the runs in a directory: state, and skill against the best reference.",
    )
    parser.add_argument("directory", metavar="DIR", nargs="?", default="runs", help="default: runs")
    add_json(parser)
    parser.set_defaults(run=_runs)

    parser = commands.add_parser(
        "compare",
        help="test whether one of two runs is better, lead by lead",
        description="The RMSE of two runs on the dates that both forecast, with 95 % intervals of "
        "its difference; of runs of classes their RPS and hit rate.",
    )
    parser.add_argument("first", metavar="A", help="directory of a run")
    parser.add_argument("second", metavar="B", help="directory of another run of the same target")
    add_json(parser)
    parser.set_defaults(run=_compare)

    parser = commands.add_parser(
        "doctor",
        help="versions, devices, memory, disk, cache and data of this machine",
        description="Look whether this machine has what gridcast needs. Exit code 1: it has not.",
    )
    add_json(parser)
    parser.set_defaults(run=_doctor)


def _show(arguments: argparse.Namespace) -> None:
    from gridcast.config import load_config
    from gridcast.config.shown import show_config

    print(show_config(load_config(arguments.config, arguments.overrides)), end="")


def _schema(arguments: argparse.Namespace) -> None:
    from gridcast.config.json_schema import json_schema

    print(json.dumps(json_schema(), indent=1))


def _runs(arguments: argparse.Namespace) -> None:
    from gridcast.run_list import runs_in

    found = runs_in(arguments.directory)
    if arguments.json:
        print(strict_json({"runs": [asdict(run) for run in found]}))
        return
    if not found:
        print(f"no runs in {arguments.directory}")
        return
    header = ("run", "model", "data", "state", "skill, first lead", "last lead", "UTC")
    rows = [
        (r.directory, r.model, r.data, r.state, _shown(r.first), _shown(r.last), r.date)
        for r in found
    ]
    print("\n".join(table(header, rows)))
    print("skill: 1 - MSE / MSE of the reference that is best at this lead; of classes, of the RPS")


def _compare(arguments: argparse.Namespace) -> None:
    from gridcast.pairing import compare_runs

    found = compare_runs(arguments.first, arguments.second)
    if arguments.json:
        print(strict_json({"compared": [one.as_plain() for one in found]}))
    else:
        print("\n\n".join(map(str, found)))


def _shown(skill: Skill | None) -> str:
    return "" if skill is None else f"{skill.lead}: {skill.skill:+.3f} ({skill.reference})"


def _doctor(arguments: argparse.Namespace) -> int:
    from gridcast.doctor import BROKEN, examine

    checks = examine()
    healthy = all(check.state != BROKEN for check in checks)
    if arguments.json:
        print(strict_json({"healthy": healthy, "checks": [asdict(check) for check in checks]}))
    else:
        print("\n".join(table(("", "", ""), [(c.state, c.name, c.found) for c in checks])[1:]))
        for check in checks:
            if check.fix:
                print(f"fix of {check.name}: {check.fix}")
        print("healthy" if healthy else "something that gridcast needs is broken")
    return 0 if healthy else 1
