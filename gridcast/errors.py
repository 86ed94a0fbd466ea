"""Errors that a user can mend; everything else is a bug and keeps its traceback."""


class GridcastError(Exception):
    """Something the user can mend.

    The message's first line says what was found; the lines after it say what was expected and
    the nearest fix. The command line prints it without a traceback and ends with `exit_code`.
    """

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(GridcastError):
    """A configuration that cannot be run as written."""


class DataError(GridcastError):
    """Data that cannot be used as they are."""


class CheckpointError(GridcastError):
    """A run directory or checkpoint that is missing, damaged or does not fit."""


class TrainingError(GridcastError):
    """Training that cannot go on, for example because the loss is no longer finite."""


class LostProcessError(TrainingError):
    """Another process of a training on several hosts was lost; a new start goes on with it."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again
