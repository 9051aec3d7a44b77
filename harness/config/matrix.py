"""Which decoder runs with which cache and which end-of-text rule, on which kind of model, read off the policies."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from inspect import getdoc

from harness.config import options
from harness.config.build import build_method
from harness.config.catalogue import names, read
from harness.config.compatibility import reason_against
from harness.config.composition import compose
from harness.engine.method import DiffusionMethod
from harness.engine.model import ModelKind
from harness.engine.policies import Cache
from harness.engine.policy import REGISTRY

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
    return {name: cls() for name, cls in policies("cache").items()}


def policies(slot: str) -> dict[str, type]:
    """Return the classes of all policies of a slot."""
    options.register()
    return {name: cls for (group, name), cls in sorted(REGISTRY.items()) if group == f"method/{slot}"}


@cache
def decoders() -> list[tuple[str, ModelKind, DiffusionMethod]]:
    """Return every diffusion decoder as its file has it, for each kind of model that it runs on.

    They decode responses of 8 positions, in blocks of 4 where they have blocks.
    """
    found = []
    for name in names("method"):
        option = read("method", name)
        for kind in (kind for kind in _LETTERS if kind.value in option["models"]):
            sizes = ["gen_length=8", *(["method.block_length=4"] if "block_length" in option else [])]
            method = build_method(compose([f"model={_MODELS[kind]}", f"method={name}", *sizes]))
            assert isinstance(method, DiffusionMethod)
            found.append((name, kind, method))
    return found


def combinations(slot: str) -> list[Combination]:
    """Return all combinations of diffusion decoders, the policies of a slot, and the kinds that each decoder runs on.

    Everything else is as the decoder's file has it.
    """
    made = {name: cls() for name, cls in policies(slot).items()}
    return [
        Combination(row=name, column=other, kind=kind, reason=reason_against(method, kind, **{slot: policy}))
        for name, kind, method in decoders()
        for other, policy in made.items()
    ]


def rules_with_caches(decoder: str) -> list[Combination]:
    """Return all combinations of end-of-text rules and caches, as a decoder has them."""
    return [
        Combination(row=rule, column=name, kind=kind, reason=reason_against(method, kind, finish=cls(), cache=cache))
        for rule, cls in policies("finish").items()
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
    head = [corner, *(f"`{column}`" for column in columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in dict.fromkeys(one.row for one in found):
        cells = [_cell([one for one in found if (one.row, one.column) == (row, c)], numbers) for c in columns]
        lines.append(f"| `{row}` | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{number}. {reason}" for reason, number in numbers.items())])


def _cell(combined: list[Combination], numbers: dict[str, int]) -> str:
    runs = "".join(_LETTERS[one.kind] for one in combined if one.reason is None)
    return runs or ", ".join(dict.fromkeys(str(numbers[one.reason]) for one in combined if one.reason))
