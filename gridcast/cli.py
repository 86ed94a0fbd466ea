"""The command line: reads arguments, calls the same functions as the API, turns errors into text.

Nothing heavy is imported before a command has been chosen and its arguments are in order.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gridcast import commands_data, commands_look, commands_run, completion
from gridcast.arguments import add_hosts, add_overrides, joins, number
from gridcast.compiled import keep_compiled
from gridcast.errors import GridcastError
from gridcast.imports import uncollected

if TYPE_CHECKING:
    from gridcast.config import Config


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
      argv: the arguments after `gridcast`; default: those of the process.

    Returns:
      The exit code: 0, 2 for a mistake that the user can mend, 130 after Ctrl-C; of `doctor` 1
      where something is broken.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("gridcast")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        arguments = _parse(sys.argv[1:] if argv is None else argv)
        _keep_compiled()
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code or 0
    except GridcastError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `gridcast data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as stop:  # argparse has said why
        return stop.code if isinstance(stop.code, int) else 0
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _keep_compiled() -> None:
    from gridcast.cache import cache_dir

    # Whoever needs what lacks will say so, or the doctor.
    with uncollected(), contextlib.suppress(ImportError):
        keep_compiled(cache_dir() / "compiled")


def command_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    return _command_parser()[0]


def _command_parser() -> tuple[
    argparse.ArgumentParser, dict[Callable[..., None], argparse.ArgumentParser]
]:
    parser = argparse.ArgumentParser(
        prog="gridcast", description="Forecasts of gridded time series: NetCDF in, forecast out."
    )
    parser.add_argument("--version", action="version", version=f"gridcast {version('gridcast')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    of_config = _add_of_config(commands)
    commands_run.add(commands)
    commands_look.add(commands)
    commands_data.add(commands)
    completion.add(commands)
    return parser, of_config


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser, of_config = _command_parser()
    completion.complete(parser)
    arguments, rest = parser.parse_known_args(argv)
    # argparse closes the list of overrides at the first option: those after it come back here.
    if hasattr(arguments, "overrides"):
        arguments.overrides += [text for text in rest if not text.startswith("-")]
        rest = [text for text in rest if text.startswith("-")]
    if rest:
        of_config.get(arguments.run, parser).error(f"unknown arguments: {' '.join(rest)}")
    return arguments


def _add_of_config(
    commands: argparse._SubParsersAction,
) -> dict[Callable[..., None], argparse.ArgumentParser]:
    """The commands that begin with a config, by the function that runs them."""
    parsers = {}
    for run, name, text in (
        (_train, "train", "train a model, judge it on the test dates, forecast from the last date"),
        (_crossval, "crossval", "train without each block of years in turn, and forecast it"),
        (_tune, "tune", "try settings on years before those of the test, and write the best"),
        (_pretrain, "pretrain", "train the encoder of a CNN-LSTM by itself, as an autoencoder"),
        (
            _simulate_from,
            "simulate-from",
            "simulate a long series like the data to train on first",
        ),
        (_summary, "summary", "list the layers of the model with their shapes and parameters"),
    ):
        about = f"{text[0].upper()}{text[1:]}."
        parser = commands.add_parser(name, help=text, description=about)
        parser.add_argument("config", metavar="CONFIG", help="YAML file of the experiment")
        add_overrides(parser)
        parser.set_defaults(run=run)
        parsers[run] = parser
    train = parsers[_train]
    train.add_argument(
        "--dry-run", action="store_true", help="check settings and data, say what would happen"
    )
    train.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    add_hosts(train)
    simulate = parsers[_simulate_from]
    simulate.add_argument(
        "--years",
        type=number("a number of years", least=1),
        default=1000,
        help="length, default 1000",
    )
    simulate.add_argument("--seed", type=number(least=0), default=0, help="of the noise, default 0")
    simulate.add_argument("--output", metavar="FILE", help="default: runs/NAME-simulated.nc")
    return parsers


def _config(arguments: argparse.Namespace, suffix: str = "") -> Config:
    from gridcast.config import load_config

    loaded = load_config(arguments.config, arguments.overrides)
    return loaded.with_directory(f"runs/{Path(arguments.config).stem}{suffix}")


def _train(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    if joins(arguments):
        _train_together(config, arguments)
        return
    with uncollected():
        from gridcast import experiment

    if arguments.dry_run:
        print(experiment.dry_run(config))
    else:
        experiment.run_training(config, resume=arguments.resume)


def _train_together(config: Config, arguments: argparse.Namespace) -> None:
    from gridcast import hosts

    with hosts.joined(arguments.coordinator, arguments.processes, arguments.process):
        from gridcast.experiment import run_training
        from gridcast.fitting import take_part

        run = run_training if hosts.writes() else take_part
        run(config, resume=arguments.resume)


def _crossval(arguments: argparse.Namespace) -> None:
    config = _config(arguments, "-crossval")
    from gridcast.crossval import cross_validate

    cross_validate(config)


def _tune(arguments: argparse.Namespace) -> None:
    config = _config(arguments, "-tune")
    from gridcast.tuning import table, tune

    print(table(tune(config)))


def _pretrain(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    from gridcast.pretraining import pretrain

    print(pretrain(config))


def _simulate_from(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    from gridcast.long_training import next_commands
    from gridcast.simulation import simulate_from

    path = simulate_from(
        config, years=arguments.years, seed=arguments.seed, output=arguments.output
    )
    for command in next_commands(config, arguments.config, arguments.overrides, path):
        print(command)


def _summary(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    from gridcast.experiment import summary

    print(summary(config))
