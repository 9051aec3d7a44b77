"""Errors that a user can act on; each message is one line naming file or key, value, and what would do."""


class ConfigError(ValueError):
    """A setting cannot be used: names the key, the value and what would do."""


class DataError(ValueError):
    """A file or its content cannot be used: names the file, the place in it and what would do."""


class MissingDependency(ImportError):
    """An optional package is not installed: names it and the command that installs it."""
