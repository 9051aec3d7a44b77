"""Which decoder runs with which cache on which kind of model, read off the policies themselves."""

from dataclasses import dataclass

from harness.engine.model import ModelKind
from harness.engine.policies import Cache, DiffusionMethod
from harness.engine.policy import REGISTRY
from harness.runs import options
from harness.runs.build import build_method
from harness.runs.catalogue import names, read
from harness.runs.compatibility import reason_against
from harness.runs.config import compose

_LETTERS = {ModelKind.MASKED_DIFFUSION: "m", ModelKind.BLOCK_DIFFUSION: "b"}
_MODELS = {ModelKind.MASKED_DIFFUSION: "tiny_mdm", ModelKind.BLOCK_DIFFUSION: "tiny_block"}


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A decoder with a cache on a kind of model; `reason` says why it is refused, None that it runs."""

    method: str
    cache: str
    kind: ModelKind
    reason: str | None


def caches() -> dict[str, Cache]:
    """Return every cache with its defaults."""
    options.register()
    return {name: cls() for (group, name), cls in sorted(REGISTRY.items()) if group == "method/cache"}


def combinations() -> list[Combination]:
    """Return all combinations of diffusion decoders, caches, and the kinds of model that each decoder runs on."""
    found, known = [], caches()
    for name in names("method"):
        option = read("method", name)
        for kind in (kind for kind in _LETTERS if kind.value in option["models"]):
            blocks = ["method.block_length=8"] if "block_length" in option else []
            method = build_method(compose([f"model={_MODELS[kind]}", f"method={name}", *blocks]))
            assert isinstance(method, DiffusionMethod)
            for cache, made in known.items():
                reason = reason_against(method, made, kind)
                found.append(Combination(method=name, cache=cache, kind=kind, reason=reason))
    return found


def markdown(found: list[Combination]) -> str:
    """Return a table of decoders by caches, and the reasons of the refusals."""
    columns = list(dict.fromkeys(one.cache for one in found))
    numbers = {reason: i for i, reason in enumerate(dict.fromkeys(one.reason for one in found if one.reason), 1)}
    lines = ["| method | " + " | ".join(f"`{cache}`" for cache in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method in dict.fromkeys(one.method for one in found):
        cells = [_cell([one for one in found if (one.method, one.cache) == (method, c)], numbers) for c in columns]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    kinds = ", ".join(f"{letter}: {kind.value.replace('_', ' ')}" for kind, letter in _LETTERS.items())
    reasons = [f"{number}. {reason}" for reason, number in numbers.items()]
    return "\n".join([*lines, "", f"Runs on {kinds} models; a number is the reason of a refusal.", "", *reasons])


def _cell(combined: list[Combination], numbers: dict[str, int]) -> str:
    runs = "".join(_LETTERS[one.kind] for one in combined if one.reason is None)
    return runs or ", ".join(dict.fromkeys(str(numbers[one.reason]) for one in combined if one.reason))
