"""Errors that a user can act on; each message is one line naming file or key, value, and what would do."""


class ConfigError(ValueError):
    """A setting cannot be used: names the key, the value and what would do."""


class DataError(ValueError):
    """A file or its content cannot be used: names the file, the place in it and what would do."""


class RunFailed(Exception):
    """A run that was possible ended without a result: names the run and what happened."""


class MissingDependency(ImportError):
    """An optional package is not installed: names it and the command that installs it."""


def one_line(error: BaseException) -> str:
    """Return what went wrong as one line; errors for users speak for themselves, others are named."""
    text = " ".join(str(error).split())
    told = isinstance(error, ConfigError | DataError | MissingDependency | RunFailed)
    return text if told else f"{type(error).__name__}: {text}"
