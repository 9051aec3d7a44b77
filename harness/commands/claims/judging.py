"""Which claims are asked for, and their verdicts from stores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.commands.claims.naming import Namer
from harness.commands.systems import systems
from harness.config.catalogue import nearest
from harness.errors import ConfigError, DataError
from harness.results.claims.claim import Claim, Side
from harness.results.claims.evidence import Cell, Missing, collect, of_side
from harness.results.claims.metrics import METRICS
from harness.results.claims.reading import read_claims
from harness.results.claims.rendering import Judged
from harness.results.claims.verdict import judge
from harness.results.store import Store

Cells = Mapping[str, Sequence[Cell]]
Named = Mapping[Side, Sequence[str] | Missing]


def claims_of(file: Path) -> list[Claim]:
    """Return the claims of a file; raise DataError for one of a system that nobody knows."""
    claims, known = read_claims(file), [one.name for one in systems()]
    for claim in claims:
        if claim.system not in known:
            raise DataError(f"{file}: {claim.id}: system={claim.system}: {nearest(claim.system, known)}")
    return claims


def chosen(claims: Sequence[Claim], words: Sequence[str]) -> list[Claim]:
    """Return the claims that words mean, all without one; raise ConfigError for a word that means none."""
    found = {} if words else {claim.id: claim for claim in claims}
    for word in words:
        exact = [claim for claim in claims if word in (claim.id, claim.system)]
        meant = exact or [claim for claim in claims if claim.id.startswith(word)]
        if not meant:
            known = [*(claim.id for claim in claims), *dict.fromkeys(claim.system for claim in claims)]
            raise ConfigError(f"{word}: no such claim; {nearest(word, known)}")
        found |= {claim.id: claim for claim in meant}
    return list(found.values())


def judge_all(claims: Sequence[Claim], store: Store, kept: Cells) -> tuple[list[Judged], list[Cell]]:
    """Return every claim with its verdict, and all runs of their settings; `kept` ones stand in for missing ones."""
    namer = Namer()
    named = {side: namer.name(side) for claim in claims for side in claim.sides}
    wanted = {one for ids in named.values() if not isinstance(ids, Missing) for one in ids}
    cells = {**kept, **collect(store, wanted)}
    judged = [judged_one(claim, named, cells, namer.lacking(claim)) for claim in claims]
    return judged, [cell for name in wanted & cells.keys() for cell in cells[name]]


def judged_one(claim: Claim, named: Named, cells: Cells, lacking: Sequence[str]) -> Judged:
    """Return a claim with its verdict from runs by setting; `lacking` are parts that it needs and that do not exist."""
    timed = any(check.metric is not None and METRICS[check.metric].timed for check in claim.checks)
    evidence = {}
    for side in claim.sides:
        ids = named[side]
        evidence[side] = ids if isinstance(ids, Missing) else of_side(cells, ids, timed=timed)
    return Judged(
        claim=claim, named={side: named[side] for side in claim.sides}, verdict=judge(claim, evidence, lacking)
    )
