"""Hydra's config loader: what it reads is kept, and one rule is added. All that rests on Hydra's inside is here.

Composing reads thirty files and merges them, which takes as long as decoding a batch with a small model. Files are
read once here, and options are composed once, each apart from the others where that is the same: an override that sets
a value is applied to a copy.

The rule: what a method's file says about a slot is about the policy that the file chooses for it. `finish: {enabled:
"${..early_stop}"}` wires a knob to `block_eos`. With `method/finish=prefix_eos`, whose class has no such field, Hydra
would merge it all the same and fail; here it reaches the file's own choice only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime, setup_globals
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict

from harness.config import options, plugins, words
from harness.config.option_files import ASSUMED
from harness.config.plugin import Plugin
from harness.config.sections import Whole, assembled, chosen, copied, is_in
from harness.errors import MissingDependency, RunFailed, one_line

ROOT = "bench"
_OWN = SearchPathQuery(provider="main", path=None)
"""Hydra's name for the folder that holds the root; plug-ins come right behind it."""

_GO_ON = "finished runs and batches are stored, the same command runs what is missing, launch=inline in this process"


def loader() -> "Loader":
    """Return the loader of this process; every option must be registered before."""
    return _loader(plugins.current())


@cache
def _loader(others: tuple[Plugin, ...]) -> "Loader":
    version.setbase("1.3")
    setup_globals()
    JobRuntime.instance().set("name", "decbench")
    search_path = create_config_search_path(f"file://{plugins.ours().conf}")
    for plugin in reversed(others):
        if plugin.conf is not None:
            search_path.append(plugin.origin, f"file://{plugin.conf}", anchor=_OWN)
    return Loader(search_path)


def launcher_of(overrides: Sequence[str]) -> DictConfig:
    """Return the config of the launcher that a job chooses."""
    return loader().load_configuration(ROOT, list(overrides), RunMode.MULTIRUN).hydra.launcher


def launch(jobs: Sequence[Sequence[str]], work: Callable[[DictConfig], Any]) -> list[Any]:
    """Have the launcher that the first of some jobs chooses do `work` with the config of each; return what it returned.

    Raises what `work` raised, and RunFailed where a process ended before its work did, or none could be started.
    """
    config = loader().load_configuration(ROOT, list(jobs[0]), RunMode.MULTIRUN)
    context = HydraContext(config_loader=loader(), callbacks=Callbacks(config))
    try:
        launcher = _launcher(context, work, config)
        results = launcher.launch(jobs, initial_job_idx=0)
    except MissingDependency:
        raise
    except Exception as error:
        # What work raises lies in its result; this is about processes: killed, refused by a cluster, not picklable.
        what = words.short(one_line(error).partition(". ")[0])
        raise RunFailed(f"launch={config.hydra.runtime.choices.launch}: {what}; {_GO_ON}") from error
    return [result.return_value for result in results]


def _launcher(context: HydraContext, work: Callable[[DictConfig], Any], config: DictConfig) -> Launcher:
    """Return the launcher of a config: a plug-in of Hydra's, or a class of ours, which Hydra itself refuses."""
    options = {str(key): value for key, value in config.hydra.launcher.items()}
    target = str(options.pop("_target_"))
    if Plugins.is_in_toplevel_plugins_module(target):
        return Plugins.instance().instantiate_launcher(hydra_context=context, task_function=work, config=config)
    launcher = get_class(target)(**options)
    launcher.setup(hydra_context=context, task_function=work, config=config)
    return launcher


class Loader(ConfigLoaderImpl):
    """Composes `conf`; a config's `overrides` are what was asked for."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._read = _Completed(self.repository)
        self._files: dict[str, list[ResultDefault] | None] = {}
        self._put: dict[tuple[object, ...], ConfigResult] = {}

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Return the config with its `hydra` node."""
        cfg = super().load_configuration(*args, **kwargs)
        cfg.overrides = cfg.hydra.overrides.task
        return cfg

    def compose(self, overrides: Sequence[Override]) -> DictConfig:
        """Return the config without its `hydra` node."""
        self.validate_sweep_overrides_legal(list(overrides), RunMode.RUN, from_shell=False)
        choices: list[Override] = []
        values: list[Override] = []
        for override in overrides:
            (choices if self._chooses(override) else values).append(override)
        cfg = assembled(self, choices)
        self._apply_overrides_to_config(values, cfg)
        cfg.overrides = [override.input_line for override in overrides]
        return cfg

    def chosen(self, overrides: Sequence[Override]) -> Mapping[str, str | None]:
        """Return the options of the groups that no section holds, the experiment and the launcher among them."""
        return chosen(self, [override for override in overrides if self._chooses(override)])

    def whole(self, choices: Sequence[str]) -> Whole:
        """Return the config of some choices, and what it is made of."""
        parsed, repo = self._parse_overrides_and_create_caching_repo(ROOT, list(choices))
        found = create_defaults_list(repo, ROOT, parsed, prepend_hydra=True, skip_missing=False)
        cfg = self._compose_config_from_defaults_list(found.defaults, repo)
        OmegaConf.set_struct(cfg, True)
        self._apply_overrides_to_config(found.config_overrides, cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        files, metadata = found.overrides, found.overrides.override_metadata
        fixed = {key: name for key, name in files.override_choices.items() if not metadata[key].external_override}
        return Whole(cfg=cfg, files=found.defaults, options=files.known_choices, fixed=fixed)

    def files_of(self, option: str, slots: Mapping[str, Any]) -> list[ResultDefault] | None:
        """Return the files of an option with some of its slots chosen; None if one is about more than its section."""
        if option not in self._files:
            self._files[option] = self._listed(option, {})
        own = self._files[option]
        return self._exchanged(own, slots) or self._listed(option, slots) if own and slots else own

    def _exchanged(self, files: Sequence[ResultDefault], slots: Mapping[str, Any]) -> list[ResultDefault] | None:
        """Put the files of slots in the place of those that there are; None where that is more than an exchange.

        Hydra finds the same files, but makes a config of all choices for each.
        """
        made = list(files)
        for slot, name in slots.items():
            path = f"{slot}/{name}"
            places = [at for at, one in enumerate(made) if str(one.config_path).rpartition("/")[0] == slot]
            found = self._read.load_config(path) if self._read.config_exists(path) else None
            if len(places) != 1 or found is None or found.defaults_list or found.header.get("package"):
                return None
            made[places[0]] = replace(made[places[0]], config_path=path)
        return made

    def _listed(self, option: str, slots: Mapping[str, Any]) -> list[ResultDefault] | None:
        given = [f"{slot}={name}" for slot, name in slots.items()]
        parsed = OverridesParser.create().parse_overrides(given)
        found = create_defaults_list(self._read, option, parsed, prepend_hydra=False, skip_missing=False)
        section = option.partition("/")[0]
        chosen = all(one.external_override for one in found.overrides.override_metadata.values())
        inner = all(is_in(section, file) and not self._leaves(str(file.config_path)) for file in found.defaults)
        return found.defaults if chosen and inner else None

    def said(self, section: str, files: list[ResultDefault]) -> frozenset[str]:
        """Return the keys of a section that files about the root have."""
        repo = _Wired(self._read, files, only=section)
        node = super()._compose_config_from_defaults_list(files, repo)._get_node(section)
        return frozenset(map(str, node)) if isinstance(node, DictConfig) and not node._is_missing() else frozenset()

    def merged(self, section: str, files: list[ResultDefault]) -> DictConfig:
        """Return a section as files make it that are about it or about the root."""
        repo = _Wired(self._read, files, only=section)
        return super()._compose_config_from_defaults_list(files, repo)[section]

    def is_inner(self, choice: Override) -> bool:
        """Say whether a choice names an option that is put below its own section."""
        plain = choice.type is OverrideType.CHANGE and choice.package is None and isinstance(choice.value(), str)
        return plain and not choice.is_hydra_override() and not self._leaves(f"{choice.key_or_group}/{choice.value()}")

    def _leaves(self, path: str) -> bool:
        """Say whether a file is none, or says itself where it is put."""
        found = self._read.load_config(path)
        return found is None or bool(found.header.get("package"))

    def _chooses(self, override: Override) -> bool:
        if override.is_hydra_override():
            return True
        return self._read.group_exists(override.key_or_group) and not isinstance(override.value(), dict)

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        return OverridesParser.create().parse_overrides(overrides), self._read

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        """Return a config where it is put; what merging changes is a copy."""
        path = str(default.config_path)
        if not isinstance(repo, _Wired) or path.rpartition("/")[0] == "method":
            return self._loaded(default, repo)
        key = path, default.package, default.primary, repo.only if path in repo.cut else None
        if key not in self._put:
            self._put[key] = self._loaded(default, repo)
        return replace(self._put[key], config=copied(self._put[key].config))

    def _loaded(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        loaded = super()._load_single_config(default, repo)
        kept = repo.load_config(str(default.config_path))
        # Merging changes the config that it starts from, and one without a package is no copy yet.
        return replace(loaded, config=copied(loaded.config)) if kept is loaded else loaded

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        return super()._compose_config_from_defaults_list(defaults, _Wired(repo, defaults))


class _Completed(CachingConfigRepository):
    """Configs with what their files need not say: a name, what is assumed, and the parts that classes default to."""

    def __init__(self, delegate: IConfigRepository) -> None:
        # The base class copies every source; options that are stored later have to be seen.
        self.delegate, self.cache = delegate, {}

    def group_exists(self, config_path: str) -> bool:
        """Say whether there is a group; policies are read from their classes."""
        return options.is_slot(config_path) or super().group_exists(config_path)

    def config_exists(self, config_path: str) -> bool:
        """Say whether there is a config; a policy's is made when it is asked for."""
        options.provide(config_path)
        return super().config_exists(config_path)

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return a config, completed when it is read."""
        options.provide(config_path)
        known = f"config_path={config_path}" in self.cache
        found = super().load_config(config_path)
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        if known or found is None:
            return found
        parts = found.defaults_list or []
        if not any(map(_is_self, parts)) and not all(one.is_override() for one in parts):
            # Hydra puts it there, too, but warns where an option is composed apart.
            found.defaults_list = [*parts, ConfigDefault(path="_self_")]
        if group not in ASSUMED:
            return found
        assert isinstance(found.config, DictConfig)
        listed = found.defaults_list or []
        at = next((i for i, one in enumerate(listed) if _is_self(one)), len(listed))
        alone = not any(isinstance(one, ConfigDefault) and not _is_self(one) for one in listed)
        with open_dict(found.config):
            for key, value in {"name": name, **(ASSUMED[group] if alone else {})}.items():
                found.config.setdefault(key, value)
        if group == "method" and alone:
            chosen = {one.group for one in listed if isinstance(one, GroupDefault)}
            parts = options.parts_of({"defaults": [], "family": found.config.family})
            more = [GroupDefault(group=slot, value=part) for slot, part in parts.items() if slot not in chosen]
            found.defaults_list = [*listed[:at], *more, *listed[at:]]
        return found


def _is_self(one: InputDefault) -> bool:
    return isinstance(one, ConfigDefault) and one.path == "_self_"


class _Wired(CachingConfigRepository):
    """The configs of one composition, methods without what is wired to policies that were not chosen.

    Of the files about the root there is `only` one section, if one is given.
    """

    def __init__(self, delegate: IConfigRepository, defaults: Sequence[ResultDefault], only: str | None = None) -> None:
        self.delegate, self.cache = delegate, {}
        self.paths = {default.config_path for default in defaults}
        self.cut = {default.config_path for default in defaults if only and not default.package}
        self.only = only

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return a config as it is to be merged."""
        found = super().load_config(config_path)
        group, _, _ = config_path.rpartition("/")
        if found is not None and config_path in self.cut:
            assert isinstance(found.config, DictConfig)
            return replace(found, config=OmegaConf.masked_copy(found.config, str(self.only)))
        if found is None or group != "method":
            return found
        made = replace(found, config=copied(found.config))
        assert isinstance(made.config, DictConfig)
        with open_dict(made.config):
            for own in found.defaults_list or []:
                if isinstance(own, GroupDefault) and f"{group}/{own.group}/{own.value}" not in self.paths:
                    made.config.pop(str(own.group), None)
        return made
