"""Which decoder runs with which cache and which end-of-text rule, on which kind of model, read off the policies."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from inspect import getdoc
from typing import Any

from harness.config import options, plugins
from harness.config.build import build_method
from harness.config.catalogue import file_of, marked, names, origin, read
from harness.config.compatibility import reason_against
from harness.config.composition import compose
from harness.config.plugin import Plugin
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.diffusion.policies import Cache
from harness.engine.shared.model import ModelKind
from harness.engine.shared.policy import REGISTRY
from harness.errors import ConfigError

_SLOTS = ("cache", "finish")
_LETTERS = {ModelKind.MASKED_DIFFUSION: "m", ModelKind.BLOCK_DIFFUSION: "b"}
_MODELS = {ModelKind.MASKED_DIFFUSION: "tiny_mdm", ModelKind.BLOCK_DIFFUSION: "tiny_block"}


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A row and a column of a table on a kind of model; `reason` says why that is refused, None that it runs.

    Rows are decoders, or what is put into one; columns are what is put into that.
    """

    row: str
    column: str
    kind: ModelKind
    reason: str | None


def caches() -> dict[str, Cache]:
    """Return every cache with its defaults."""
    return _with_defaults("cache")


def policies(slot: str) -> dict[str, type]:
    """Return the classes of all policies of a slot."""
    options.register()
    return {name: cls for (group, name), cls in sorted(REGISTRY.items()) if group == f"method/{slot}"}


def _with_defaults(slot: str) -> dict[str, Any]:
    """Return the policies of a slot with their defaults, less those of plug-ins that have none."""
    found = policies(slot)
    return {name: cls() for name, cls in found.items() if not (options.origin(cls) and options.needs_values(cls))}


def policy_entries() -> list[dict[str, str]]:
    """Return one JSON-able entry per policy of every slot; `from` is the plug-in of one that is not ours."""
    options.register()
    return [
        {"name": name, "summary": (getdoc(cls) or "").split("\n\n")[0].replace("\n", " "), "slot": group}
        | ({"from": plugin} if (plugin := options.origin(cls)) else {})
        for (group, name), cls in sorted(REGISTRY.items())
    ]


def decoders() -> list[tuple[str, ModelKind, DiffusionMethod]]:
    """Return every diffusion decoder as its file has it, for each kind of model that it runs on.

    They decode responses of 8 positions, in blocks of 4 where they have blocks. Those of plug-ins that cannot be built
    are left out.
    """
    return _decoders(plugins.current())


@cache
def _decoders(others: tuple[Plugin, ...]) -> list[tuple[str, ModelKind, DiffusionMethod]]:
    found = []
    for name in names("method"):
        option = read("method", name)
        if option["family"] != "diffusion":
            continue
        for kind in (kind for kind in _LETTERS if kind.value in option["models"]):
            sizes = ["gen_length=8", *(["method.block_length=4"] if "block_length" in option else [])]
            try:
                method = build_method(compose([f"model={_MODELS[kind]}", f"method={name}", *sizes]))
            except ConfigError as error:
                if not origin("method", name):
                    raise
                plugins.note(file_of("method", name), str(error))
                continue
            assert isinstance(method, DiffusionMethod)
            found.append((name, kind, method))
    return found


def combinations(slot: str) -> list[Combination]:
    """Return all combinations of diffusion decoders, the policies of a slot, and the kinds that each decoder runs on.

    Everything else is as the decoder's file has it.
    """
    made = _with_defaults(slot)
    return [
        Combination(row=name, column=other, kind=kind, reason=reason_against(method, kind, **{slot: policy}))
        for name, kind, method in decoders()
        for other, policy in made.items()
    ]


def rules_with_caches(decoder: str) -> list[Combination]:
    """Return all combinations of end-of-text rules and caches, as a decoder has them."""
    return [
        Combination(row=rule, column=name, kind=kind, reason=reason_against(method, kind, finish=finish, cache=cache))
        for rule, finish in _with_defaults("finish").items()
        for own, kind, method in decoders()
        for name, cache in caches().items()
        if own == decoder
    ]


def document() -> str:
    """Return the tables of caches and of end-of-text rules, with the reasons of the refusals, as Markdown."""
    kinds = ", ".join(f"{letter}: {kind.value.replace('_', ' ')}" for kind, letter in _LETTERS.items())
    rules = [f"- `{name}`: {(getdoc(cls) or '').splitlines()[0]}" for name, cls in policies("finish").items()]
    return "\n".join(
        [
            f"Runs on {kinds} models; a number is the reason of a refusal.",
            "\n## Decoders and caches (`method/cache`)\n",
            markdown("method", combinations("cache")),
            "\n## Decoders and end-of-text rules (`method/finish`)\n",
            "Each decoder with the cache that its file chooses.\n",
            markdown("method", combinations("finish")),
            "",
            *rules,
            "\n## End-of-text rules and caches, with `threshold`\n",
            markdown("rule", rules_with_caches("threshold")),
        ]
    )


def markdown(corner: str, found: Sequence[Combination]) -> str:
    """Return a table, `corner` above its rows, and the reasons of the refusals."""
    columns = list(dict.fromkeys(one.column for one in found))
    numbers = {reason: i for i, reason in enumerate(dict.fromkeys(one.reason for one in found if one.reason), 1)}
    head = [corner, *(f"`{column}`{_mark(column)}" for column in columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in dict.fromkeys(one.row for one in found):
        cells = [_cell([one for one in found if (one.row, one.column) == (row, c)], numbers) for c in columns]
        mark = marked("method", row) if corner == "method" else _mark(row)
        lines.append(f"| `{row}`{mark} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{number}. {reason}" for reason, number in numbers.items())])


def _mark(policy: str) -> str:
    """Return what is added to the name of a cache or a rule: the plug-in that it is from; nothing for ours."""
    plugin = next((options.origin(made[policy]) for made in map(policies, _SLOTS) if policy in made), None)
    return f" ({plugin})" if plugin else ""


def _cell(combined: list[Combination], numbers: dict[str, int]) -> str:
    runs = "".join(_LETTERS[one.kind] for one in combined if one.reason is None)
    return runs or ", ".join(dict.fromkeys(str(numbers[one.reason]) for one in combined if one.reason))
