"""Replay reference trajectories through the real decode loop: `decbench conform [FILE ...] [--json]`.

With `model=external model.target=package.module:function` somebody else's function is replayed in its place, on the
cases of `method=NAME`: what is ported and what it was ported from, held against the same file.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import files
from harness.config.catalogue import nearest
from harness.errors import ConfigError, DataError

if TYPE_CHECKING:
    from harness.engine.diffusion.method import DiffusionMethod
    from harness.models.closed_form import ClosedFormModel

REFERENCES = tuple(
    Path(__file__).parent / name for name in ("reference-trajectories.json", "reference-trajectories-b.json")
)
_SETTING = re.compile(r"\+*[a-z_.]+=")
_CASE_KEYS = ("id", "method", "params", "gen_length", "prompt", "model", "expected")
_MODEL_KEYS = ("vocab_size", "mask_id", "eos_id", "a1", "f1", "a2", "f2", "f3", "eos_bias", "shifted")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one case: `passed`, `failed` or `not built`, and why."""

    id: str
    method: str
    status: str
    detail: str = ""


Decode = Callable[[dict], dict[str, object]]
"""From a case to what was found, under the names of what is expected."""


def replay(case: dict, decode: Decode | None = None) -> Verdict:
    """Decode one case and compare what is expected of it; forwards include the idle calls of the reference.

    `decode` stands in for the method of that name in this package.
    """
    from harness.config.catalogue import names

    who = {"id": str(case.get("id", "without id")), "method": str(case.get("method", "-"))}
    if lacking := [key for key in _CASE_KEYS if key not in case]:
        return Verdict(**who, status="failed", detail=f"lacks {', '.join(lacking)}")
    if decode is None and case["method"] not in names("method"):
        return Verdict(**who, status="not built", detail="no such method yet")
    try:
        found = (decode or _decode)(case)
    except (ConfigError, DataError) as error:
        return Verdict(**who, status="failed", detail=str(error))
    except Exception as error:
        # Whatever is wrong with one case says nothing about the others.
        return Verdict(**who, status="failed", detail=f"{type(error).__name__}: {error}")
    expected = case["expected"]
    unknown = [f"{key}: not compared" for key in expected if key not in found]
    wrong = [f"{k}: expected {expected[k]}, got {found[k]}" for k in expected if k in found and expected[k] != found[k]]
    if len(unknown) == len(expected):
        wrong = ["nothing to compare"]
    return Verdict(**who, status="failed" if wrong else "passed", detail="; ".join(wrong + unknown))


def _decode(case: dict) -> dict[str, object]:
    import torch

    from harness.engine.diffusion.canvas import Canvas
    from harness.engine.diffusion.loop import decode
    from harness.engine.diffusion.method import Unverified
    from harness.engine.shared.records import Ledger

    method = _method(case)
    model = _formula(case)
    canvas = Canvas.from_prompts(
        [case["prompt"]],
        gen_length=case["gen_length"],
        mask_id=case["model"]["mask_id"],
        pad_id=case["model"]["eos_id"],
        stop_ids=model.spec.stop_ids,
        seeds=[0],
    )
    ledger = Ledger()
    with torch.inference_mode():
        (generation,) = decode(model, method, canvas, ledger)
    found = {
        "ids": list(generation.tokens),
        "forwards": ledger.counts([0])[0].nfe + generation.idle,
        "commit_step": list(generation.decided_at),
        "rows": ledger.counts([0])[0].nfe_total,
        "exit_step": None if generation.stopped_at < 0 else generation.stopped_at + 1,
        "remasked": generation.remasked,
        "idle": generation.idle,
    }
    if "lengths" in case["expected"]:
        prompt = len(case["prompt"])
        found |= {
            "lengths": [int(record.query_B) - prompt for record in ledger.records] + [len(generation.tokens)],
            "stage1_forwards": len(ledger.records) - 1 - max(generation.decided_at),
        }
    if "static_ids" in case["expected"]:
        without_drafts = Ledger()
        with torch.inference_mode():
            (static,) = decode(model, replace(method, verifier=Unverified()), canvas, without_drafts)
        found |= {
            "static_ids": list(static.tokens),
            "static_forwards": without_drafts.counts([0])[0].nfe + static.idle,
        }
    return found


def _method(case: dict) -> "DiffusionMethod":
    from harness.config.build import build_method
    from harness.config.catalogue import knobs as published
    from harness.config.catalogue import read
    from harness.config.composition import compose
    from harness.engine.diffusion.method import DiffusionMethod

    known = published(read("method", case["method"]))
    if strange := case["params"].keys() - known:
        # Anything else could put a class of the file's choice in place.
        raise DataError(f"params: {min(strange)} is no knob of {case['method']}; {nearest(min(strange), known)}")
    knobs = [f"method.{name}={_override(value)}" for name, value in case["params"].items()]
    if "idle_calls" in known:
        knobs.append("method.idle_calls=true")
    cfg = compose(
        [f"method={case['method']}", f"gen_length={case['gen_length']}", "method.score_dtype=float64", *knobs]
    )
    method = build_method(cfg)
    assert isinstance(method, DiffusionMethod)
    return method


def _formula(case: dict) -> "ClosedFormModel":
    from harness.models.closed_form import ClosedForm, ClosedFormModel

    attention = case["model"].get("attention")
    if lacking := [f"model.{key}" for key in _MODEL_KEYS if key not in case["model"]]:
        raise DataError(f"lacks {', '.join(lacking)}")
    constants = {k: case["model"][k] for k in _MODEL_KEYS}
    return ClosedFormModel(ClosedForm(**constants, attention=attention and (attention["a"], attention["f"])))


def external(overrides: Sequence[str]) -> tuple[str, Decode]:
    """Return the method whose cases are replayed, and how they are decoded: by the function in `model.target`.

    It gets the parameters of the case and `model.kwargs`, and those of `model`, `mask_id` and `eos_id` that it takes.
    Steps cannot be seen from outside. Raises ConfigError for overrides that say anything else.
    """
    from harness.config.composition import compose
    from harness.config.overrides import parse
    from harness.references import find_function

    method = next((text.partition("=")[2] for text in overrides if text.startswith("method=")), None)
    # The cases may be of a method that is not in this package.
    others = [text for text in overrides if not text.startswith("method=")]
    known = [one.key_or_group for one in parse(others) if one.key_or_group.startswith(("model.target", "model.kwargs"))]
    if method is None or "model=external" not in others or len(known) < len(others) - 1:
        raise ConfigError(
            f"{' '.join(overrides)}: to replay the cases of a method by a function, give model=external "
            "model.target=package.module:function method=NAME, and model.kwargs.KEY=VALUE as it needs"
        )
    cfg = compose(others)
    generate = find_function("model.target", cfg.model.target)
    kwargs = {} if cfg.model.kwargs is None else {str(key): value for key, value in cfg.model.kwargs.items()}
    return method, lambda case: _decode_external(case, generate, f"model.target={cfg.model.target}", kwargs)


def _decode_external(
    case: dict, generate: Callable[..., object], where: str, kwargs: Mapping[str, object]
) -> dict[str, object]:
    import torch

    from harness.engine.own_sampler import OwnSamplerMethod, decode
    from harness.engine.shared.records import Ledger
    from harness.models.closed_form import ClosedFormModule
    from harness.models.external import ExternalModel, bound, taken
    from methods.external import Own

    formula = _formula(case)
    module, ledger = ClosedFormModule(formula), Ledger()
    offered = {"model": module, "mask_id": case["model"]["mask_id"], "eos_id": case["model"]["eos_id"]}
    given = taken(generate, offered) | case["params"] | kwargs
    model = ExternalModel(bound(generate, given), module, formula.spec, where=where)
    with torch.inference_mode():
        (made,) = decode(
            model,
            OwnSamplerMethod(sampler=Own()),
            [case["prompt"]],
            gen_length=case["gen_length"],
            seeds=[0],
            ledger=ledger,
        )
    counts = ledger.counts([0])[0]
    return {"ids": list(made.tokens), "forwards": counts.nfe, "rows": counts.nfe_total}


def _override(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_override(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_override, value)) + "]"
    # JSON's Infinity would be read as a word.
    return repr(value) if isinstance(value, float) else json.dumps(value)


def read_cases(path: Path) -> list[dict]:
    """Read a trajectory file; raise DataError naming the file and what is wrong with it."""
    try:
        cases = files.parsed(files.text(path))["cases"]
        if not cases:
            raise ValueError("it has no cases")
        if strange := [number for number, case in enumerate(cases, 1) if not isinstance(case, dict)]:
            raise ValueError(f"case {strange[0]} is no object")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a trajectory file ({type(error).__name__}: {error}); expected "
            f'{{"version": 1, "cases": [...]}} with {", ".join(_CASE_KEYS)}'
        ) from None
    return cases


def main(argv: Sequence[str]) -> int:
    """Replay files, print a table or JSON; return 1 if a case failed."""
    parser = argparse.ArgumentParser(prog="decbench conform", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: the files in the package")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    overrides = [word for word in argv if _SETTING.match(word)]
    arguments, unknown = parser.parse_known_args([word for word in argv if word not in overrides])
    if unknown:
        raise ConfigError(f"conform {unknown[0]}: no such option; it takes files of cases and --json")
    method, decode = external(overrides) if overrides else (None, None)
    cases = [case for file in arguments.files or REFERENCES for case in read_cases(file)]
    wanted = [case for case in cases if method in (None, case.get("method"))]
    if not wanted:
        raise ConfigError(f"method={method}: no such case; {nearest(str(method), {case['method'] for case in cases})}")
    verdicts = [replay(case, decode) for case in wanted]
    failed = [v for v in verdicts if v.status == "failed"]
    if arguments.json:
        summary = {s: sum(v.status == s for v in verdicts) for s in ("passed", "failed", "not built")}
        sys.stdout.write(json.dumps({"summary": summary, "cases": [asdict(v) for v in verdicts]}) + "\n")
    else:
        _print(verdicts)
    return 1 if failed else 0


def _print(verdicts: list[Verdict]) -> None:
    from rich.table import Table

    from harness.commands.console import console as output

    console, table = output(), Table("method", "passed", "failed", "not built")
    for method in dict.fromkeys(v.method for v in verdicts):
        mine = [v.status for v in verdicts if v.method == method]
        table.add_row(method, *(str(mine.count(s)) for s in ("passed", "failed", "not built")))
    console.print(table)
    for verdict in verdicts:
        if verdict.detail:
            console.print(f"{verdict.id}: {verdict.detail}", soft_wrap=True, highlight=False, markup=False)
