"""The rule of speed on synthetic times: what is told, what is allowed, and when there are enough rounds."""

import numpy as np
import pytest

from harness.results.gate.timing import FEWEST_ROUNDS, Pace, Round, enough, speeds


def _rounds(slowdown: float, noise: float, count: int, seed: int = 0) -> list[Round]:
    """Return rounds of a second each, which wander by `noise`; load of up to four times comes and goes per round."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        load = generator.uniform(1, 4)
        base, head, again = load * (1 + noise * generator.standard_normal(3))
        made.append(Round(base={"llada": base}, head={"llada": slowdown * head}, again={"llada": again}))
    return made


@pytest.mark.parametrize(("slowdown", "pace"), [(1.3, Pace.SLOWER), (1.0, Pace.ALIKE), (0.7, Pace.FASTER)])
def test_a_slowdown_is_seen_under_load(slowdown: float, pace: Pace):
    """Guards ratios within rounds: times themselves vary four times as much as the slowdown."""
    (found,) = speeds(_rounds(slowdown, 0.02, 10))
    assert found.pace is pace
    assert found.ratio == pytest.approx(slowdown, rel=0.05)


def test_nothing_below_five_percent_is_told():
    """Guards against an alarm because the base happened to be steady."""
    assert speeds(_rounds(1.04, 0.0, 10))[0].pace is Pace.ALIKE
    assert speeds(_rounds(1.06, 0.0, 10))[0].pace is Pace.SLOWER


def test_what_is_allowed_is_three_times_the_spread_of_the_base_to_itself():
    """Guards the rule by hand: ratios 0.9, 1, 1, 1, 1.1 have MAD 0; 0.8, 0.9, 1, 1.1, 1.2 have MAD 0.1."""
    quiet = [Round(base={"a": 1.0}, head={"a": 1.0}, again={"a": again}) for again in (0.9, 1, 1, 1, 1.1)]
    loud = [Round(base={"a": 1.0}, head={"a": 1.0}, again={"a": again}) for again in (0.8, 0.9, 1, 1.1, 1.2)]
    assert speeds(quiet)[0].allowed == 0.05
    assert speeds(loud)[0].allowed == pytest.approx(3 * 1.2533 * 1.4826 * 0.1 / 5**0.5)
    assert speeds(loud)[0].pace is Pace.UNDECIDED


def test_rounds_are_added_until_fifteen_percent_would_be_seen():
    """Guards the stopping rule: noise of 3 % per time needs more rounds than the fewest, and comes to an end."""
    rounds = _rounds(1.0, 0.06, 60)
    stopped = next(count for count in range(61) if enough(rounds[:count]))
    assert FEWEST_ROUNDS < stopped < 60
    (found,) = speeds(rounds[:stopped])
    assert found.allowed + 2 * found.spread <= 0.15
    assert not enough(rounds[: FEWEST_ROUNDS - 1])


def test_unchanged_code_is_hardly_ever_slower_and_fifteen_percent_nearly_always():
    """Guards both errors over 200 jobs that stop by the rule."""

    def judged(slowdown: float, seed: int) -> Pace:
        rounds = _rounds(slowdown, 0.03, 40, seed)
        return speeds(next(rounds[:n] for n in range(1, 41) if enough(rounds[:n]) or n == 40))[0].pace

    assert sum(judged(1.0, seed) is Pace.SLOWER for seed in range(200)) <= 2
    assert sum(judged(1.15, seed) is Pace.SLOWER for seed in range(200)) >= 190


def test_what_one_side_did_not_time_has_no_speed():
    """Guards settings that the base does not know, and those that take no time that can be measured."""
    assert speeds([]) == []
    assert speeds([Round(base={"a": 1.0}, head={"a": 1.0, "b": 1.0}, again={"a": 0.0})]) == []
