"""Tasks whose answers are programs: found in the text, put before their tests, run in the sandbox."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tasks import settings
from tasks.code import sandbox
from tasks.code.sandbox import MINIMUM, Limits, Tier
from tasks.questions import Problem, QuestionTask
from tasks.task import Grading, Sample, Score

SANDBOX = ("safe", "unsafe")
OWN = "own"


@dataclass(frozen=True, kw_only=True)
class Exam:
    """What a program is asked: the name that it must define, the header that it was shown, and the tests.

    `setup` stands before the tests; published evaluations leave it out.
    """

    entry_point: str
    tests: str
    header: str = ""
    setup: str = ""

    def program(self, code: str, *, setup: bool) -> str:
        """Return the program that passes if and only if `code` does."""
        return "\n".join([code, self.setup, self.tests] if setup else [code, self.tests]) + "\n"


def found(code: str | None, path: str) -> Score:
    """Return what a reading hands on: the program and the rule that found it, not judged yet."""
    return Score(correct=False, detail="" if code else "no_code", extracted=code, path=path if code else "none")


@dataclass(frozen=True, kw_only=True)
class CodeTask(QuestionTask):
    """Programming problems under a protocol; an answer is correct if its program passes every test.

    `wall_s` and `cpu_s` limit one program. With `sandbox` safe nothing runs below the tier that keeps files, network
    and other processes out of reach; unsafe takes what the machine has.
    """

    sandbox: str = "safe"
    wall_s: float = 30.0
    cpu_s: int = 10

    def grading(self) -> Grading:
        """Return tier and Python of the sandbox; ConfigError where this machine has none that is good enough."""
        here = sandbox.require(MINIMUM if self.sandbox == "safe" else Tier.LIMITS)
        weak = here.tier.value > MINIMUM.value
        warning = f"generated programs ran with nothing but resource limits (sandbox=unsafe): {here}"
        return super().grading() | Grading(facts=here.facts(), warnings=(warning,) if weak else ())

    def score(self, sample: Sample, text: str) -> Score:
        """Find the program, run it with its tests, and say how it ended; a timeout is tried a second time."""
        answer = super().score(sample, text)
        if answer.extracted is None:
            return answer
        return self.judge([(sample.instance, answer)])[0]

    def judge(self, answers: list[tuple[Problem, Score]]) -> list[Score]:
        """Return the scores of programs that were found, run side by side on all cores.

        Raise RuntimeError where the sandbox itself fails twice: no such program is counted as wrong.
        """
        tier = sandbox.require(MINIMUM if self.sandbox == "safe" else Tier.LIMITS).tier
        own = self.reading == OWN
        programs = [problem.gold.program(answer.extracted or "", setup=own) for problem, answer in answers]
        limits = Limits(cpu_s=self.cpu_s, wall_s=self.wall_s)
        verdicts = sandbox.run_many(programs, limits=limits, tier=tier)
        return [_judged(problem, answer, verdict) for (problem, answer), verdict in zip(answers, verdicts, strict=True)]

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from settings.unknown(self, {"sandbox": SANDBOX})
        for key in ("wall_s", "cpu_s"):
            if getattr(self, key) <= 0:
                yield key, "must be more than 0 seconds"


def _judged(problem: Problem, answer: Score, verdict: sandbox.Verdict) -> Score:
    if verdict.status == "sandbox_error":
        raise RuntimeError(f"sandbox: {problem.id} could not be run ({verdict.detail} {verdict.output_tail})")
    repeated = {} if verdict.first is None else {"timeouts": 1.0 + (verdict.status == "timeout")}
    reason = verdict.status if not verdict.detail else f"{verdict.status}: {verdict.detail}"
    return replace(answer, correct=verdict.passed, detail="" if verdict.passed else reason, measures=repeated)
