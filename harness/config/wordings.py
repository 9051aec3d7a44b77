"""Where the sentences of published protocols come from: this package, or the user's own checkout of the code."""

from collections.abc import Sequence

from harness.config.build import build_task
from harness.config.catalogue import read
from harness.config.composition import compose
from harness.errors import ConfigError, DataError
from tasks.questions import QuestionTask


def origins(protocol: str, overrides: Sequence[str]) -> dict[str, str]:
    """Return for each task of a protocol the files that its wording is from, or why it cannot be read.

    `overrides` name the checkout, and the model where its wording differs. Raise the first error where nothing can be
    read: then it is the folder that is wrong.
    """
    found: dict[str, str] = {}
    errors: list[ConfigError | DataError] = []
    for task in read("protocol", protocol)["tasks"]:
        try:
            built = build_task(compose([*overrides, f"task={task}", f"protocol={protocol}"]))
            assert isinstance(built, QuestionTask), "protocols are published for questions"
            if built.published is None:
                raise ConfigError("protocol.wording: needs a folder; give your checkout of the evaluation code")
            found[task] = ", ".join(dict.fromkeys(built.published.files.values()))
        except (ConfigError, DataError) as error:
            errors.append(error)
            found[task] = f"cannot be read: {error}"
    if len(errors) == len(found):
        raise errors[0]
    return found
