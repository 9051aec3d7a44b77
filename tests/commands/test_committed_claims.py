"""The claims that are committed: complete, and with the verdicts that the committed runs give."""

import json
from collections import Counter
from pathlib import Path

import pytest

from harness.commands.claims import judging, printing
from harness.commands.claims.naming import Namer
from harness.commands.systems import systems
from harness.config import compatibility, protocols
from harness.config.build import Builder
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.errors import ConfigError
from harness.results.claims.claim import Claim, Side
from harness.results.claims.evidence import Missing
from harness.results.claims.kept import read_kept

RESULTS = Path(__file__).resolve().parents[2] / "results"
EMBEDDED = {"model=tiny_mdm", "model=tiny_block", "model=oracle"}


@pytest.fixture(scope="module")
def committed() -> list[Claim]:
    return judging.claims_of(RESULTS / "claims.yaml")


@pytest.fixture(scope="module")
def told() -> list[dict]:
    return json.loads((RESULTS / "claims.json").read_text())


def test_every_system_has_a_claim(committed: list[Claim]):
    """Guards the forty, and the others that are listed, against one that is left out."""
    assert {one.name for one in systems()} == {claim.system for claim in committed}


def test_the_committed_verdicts_follow_from_the_committed_runs(committed: list[Claim], told: list[dict]):
    """Guards claims.json and claims.md against a claim, a number or a word that was changed by hand.

    Names of settings are taken from the JSON, since composing all of them takes half a minute: a slow test does that.
    """
    named: dict[Side, list[str] | Missing] = {}
    for claim, entry in zip(committed, told, strict=True):
        for side, setting in zip(claim.sides, entry["settings"], strict=True):
            assert side.command == setting["command"]
            missing = Missing(reason=setting["missing"] or "", parts=tuple(setting["parts"]))
            named[side] = setting["setting_ids"] or missing
    cells, namer = read_kept(RESULTS / "claims.parquet"), Namer()
    judged = [judging.judged_one(claim, named, cells, namer.lacking(claim)) for claim in committed]
    assert json.loads(printing.as_json(judged)) == told
    assert printing.as_markdown(judged) == (RESULTS / "claims.md").read_text()


def test_a_mechanism_is_never_called_a_reproduction(told: list[dict]):
    """Guards the words: verdicts of published values and of mechanisms are disjoint, and both kinds are there."""
    verdicts = {
        kind: Counter(one["verdict"] for one in told if one["kind"] == kind) for kind in ("published", "mechanism")
    }
    assert not {"reproduced", "within interval", "differs"} & verdicts["mechanism"].keys()
    assert not {one for one in verdicts["published"] if one.startswith("mechanism")}
    assert verdicts["mechanism"]["mechanism holds"] and verdicts["mechanism"]["mechanism fails"]
    decided = {"reproduced", "within interval", "differs", "mechanism holds", "mechanism fails", "mechanism undecided"}
    assert all(one["run_ids"] and one["n"] for one in told if one["verdict"] in decided)


def test_the_experiments_have_every_setting_of_the_embedded_models(committed: list[Claim]):
    """Guards `decbench run experiment=claims_tiny` and its two companions: no claim needs a run that none makes."""
    made = set()
    for name in ("decoders_tiny", "claims_tiny", "claims_oracle"):
        option = read("experiment", name)
        model = "model=oracle" if name == "claims_oracle" else "model=tiny_mdm"
        for point in option["points"]:
            words = {"gen_length=16", "task.samples=32", model} if option.get("axes") else {"gen_length=16", model}
            chosen = {word.split("=")[0] for word in point.split()}
            made.add(frozenset({*point.split(), *(one for one in words if one.split("=")[0] not in chosen)}))
    for side in (side for claim in committed for side in claim.sides if EMBEDDED & {*side.overrides}):
        several = [f"task={task}" for task in side.tasks] if "model=oracle" in side.overrides else []
        assert frozenset({*side.overrides, *several}) in made, side.command


def test_names_in_commands_are_those_of_parts(committed: list[Claim]):
    """Guards settings that cannot be composed here, for want of weights, against words that nothing knows."""
    protocols, models = names("protocol"), names("model")
    for side in (side for claim in committed for side in claim.sides):
        given = dict(one.split("=", 1) for one in side.overrides)
        assert given["model"] in models and given.get("protocol", "own") in protocols, side.command


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_committed_names_are_those_of_runs(committed: list[Claim], told: list[dict]):
    """Guards the names in claims.json: those of the embedded models are what composing gives."""
    namer = Namer()
    for claim, entry in zip(committed, told, strict=True):
        for side, setting in zip(claim.sides, entry["settings"], strict=True):
            if EMBEDDED & {*side.overrides}:
                found = namer.name(side)
                assert setting["setting_ids"] == ([] if isinstance(found, Missing) else found), side.command


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_settings_that_wait_for_weights_can_be_composed(committed: list[Claim]):
    """Guards claims of published models against knobs, lengths and protocols that a run would refuse."""
    namer, refused = Namer(), {}
    for side in dict.fromkeys(side for claim in committed for side in claim.sides):
        if EMBEDDED & {*side.overrides} or (isinstance(found := namer.name(side), Missing) and found.parts):
            continue
        cfg = compose([*side.overrides, f"task={side.tasks[0]}"])
        try:
            protocols.check(cfg)
            compatibility.fit_decoding(cfg, Builder())
        except ConfigError as error:
            refused[side.command] = str(error)
    assert refused == {}
