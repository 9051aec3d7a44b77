"""What became of a sample of mutants, and which survivors have a written reason."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

REASONS = Path(__file__).parent / "survivors.toml"
_ALLOWED = 0.05


@dataclass(frozen=True, order=True)
class Change:
    """One mutant as a reader sees it, wherever its line has moved to."""

    file: str
    before: str
    after: str

    @classmethod
    def of(cls, path: Path, diff: str) -> "Change":
        """Read it off a unified diff."""
        lines = [line for line in diff.splitlines() if not line.startswith(("--- ", "+++ "))]
        before, after = (
            " ".join(word for line in lines if line.startswith(sign) for word in line[1:].split()) for sign in "-+"
        )
        return cls(str(path), before, after)


def reasons(text: str) -> dict[Change, str]:
    """Read why survivors are accepted; ValueError names an entry without a reason."""
    accepted = {}
    for entry in tomllib.loads(text).get("survivor", []):
        reason = entry.pop("reason", "").strip()
        if not reason:
            raise ValueError(f"{REASONS.name}: {entry}: has no reason")
        accepted[Change(**entry)] = reason
    return accepted


def outdated(accepted: Iterable[Change], tree: Path) -> list[Change]:
    """Return changes of lines that are no longer in their file."""
    texts = {change.file: tree / change.file for change in accepted}
    lines = {file: path.read_text() if path.exists() else "" for file, path in texts.items()}
    return [change for change in accepted if change.before not in " ".join(lines[change.file].split())]


def report(mutants: Iterable[WorkItem], results: Mapping[str, WorkResult], accepted: Mapping[Change, str]) -> list[str]:
    """Return why a sample does not pass, in lines to be printed, after saying what became of it."""
    mutants = list(mutants)
    outcomes = {mutant.job_id: outcome(results.get(mutant.job_id)) for mutant in mutants}
    survivors = [
        Change.of(mutant.mutations[0].module_path, results[mutant.job_id].diff or "")
        for mutant in mutants
        if outcomes[mutant.job_id] == "survived"
    ]
    unexplained = sorted(change for change in survivors if change not in accepted)
    for change in unexplained:
        print("\n[[survivor]]", *(f"{key} = {json.dumps(value)}" for key, value in asdict(change).items()), sep="\n")
    missing = sum(found == "not judged" for found in outcomes.values())
    print(
        f"\n{len(mutants)} mutants: {len(mutants) - missing - len(survivors)} killed, {len(survivors)} survived, "
        f"{len(survivors) - len(unexplained)} of them with a reason; {missing} not judged"
    )
    faults = [f"{missing} mutants are not judged: run again"] if missing else []
    if len(unexplained) > _ALLOWED * len(mutants):
        share = len(unexplained) / len(mutants)
        faults.append(f"{share:.1%} survive without a reason in {REASONS.name}, more than {_ALLOWED:.0%}")
    return faults


def outcome(result: WorkResult | None) -> str:
    """Return killed, survived or not judged; a mutant that could not be tried proves nothing."""
    if result is None or result.worker_outcome != WorkerOutcome.NORMAL:
        return "not judged"
    return "survived" if result.test_outcome == TestOutcome.SURVIVED else "killed"
