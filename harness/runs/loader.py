"""Hydra's config loader with one rule of its own.

What a method's file says about a slot is about the policy that the file chooses for it: `finish: {enabled:
"${..early_stop}"}` wires a knob to `block_eos`. With `method/finish=prefix_eos`, whose class has no such field, Hydra
would merge it all the same and fail; here it reaches the file's own choice only.
"""

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.utils import JobRuntime, setup_globals
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, open_dict


@cache
def loader() -> "Loader":
    """Return the loader of this process."""
    version.setbase("1.3")
    setup_globals()
    JobRuntime.instance().set("name", "decbench")
    return Loader(create_config_search_path("pkg://conf"))


class Loader(ConfigLoaderImpl):
    """Composes `conf`; a config's `overrides` are what was asked for."""

    def load_configuration(
        self, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any
    ) -> DictConfig:
        """Return the config with its `hydra` node."""
        cfg = super().load_configuration(config_name, overrides, *args, **kwargs)
        cfg.overrides = cfg.hydra.overrides.task
        return cfg

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        return super()._compose_config_from_defaults_list(defaults, _Wired(repo, defaults))


class _Wired(CachingConfigRepository):
    """The configs of one composition, methods without what is wired to policies that were not chosen."""

    def __init__(self, delegate: IConfigRepository, defaults: Sequence[ResultDefault]) -> None:
        super().__init__(delegate)
        self.paths = {default.config_path for default in defaults}

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return a config as it is to be merged."""
        found = super().load_config(config_path)
        group, _, _ = config_path.rpartition("/")
        if found is None or group != "method":
            return found
        made = copy.copy(found)
        made.config = copy.deepcopy(found.config)
        assert isinstance(made.config, DictConfig)
        with open_dict(made.config):
            for own in found.defaults_list or []:
                if isinstance(own, GroupDefault) and f"{group}/{own.group}/{own.value}" not in self.paths:
                    made.config.pop(str(own.group), None)
        return made
