"""Search of a method's knobs with Optuna: the cheapest setting that loses at most a margin.

Directly, not through Hydra's sweeper for Optuna: that one sees one number per job and no constraint, and runs jobs
outside of our plans. Nothing is stored but the runs: the same seed asks for the same settings again, whose runs are
taken from the store, and so a search that was stopped goes on where it was.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from harness.config.ranges import Choices, Knob
from harness.errors import MissingDependency
from harness.results.non_inferiority import Compared

Overrides = tuple[str, ...]
Evaluate = Callable[[Overrides], Compared | None]
_CONSTRAINT = "loss beyond the margin"
_WORST = 1.0


def search(knobs: Sequence[Knob], evaluate: Evaluate, *, margin: float, trials: int, seed: int) -> list[Overrides]:
    """Return the settings that were tried, each once, in order; `margin` is a share of accuracy.

    `evaluate` compares a setting with the baseline, and gives None for one that cannot be. A space of no more settings
    than `trials` is tried whole. Raises MissingDependency without Optuna.
    """
    optuna = _optuna()
    size = math.prod(len(one.values) for one in knobs)
    if size > trials:
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(4, trials // 3))
    else:
        sampler = optuna.samplers.GridSampler({one.key: _grid(one) for one in knobs}, seed=seed)
    study = optuna.create_study(sampler=sampler, direction="minimize")
    tried: dict[Overrides, Compared | None] = {}

    def objective(trial: Any) -> float:
        told = tuple(_override(trial, one) for one in knobs)
        if told not in tried:
            tried[told] = evaluate(told)
        found = tried[told]
        if found is None:
            trial.set_constraint(_CONSTRAINT, _WORST)
            raise optuna.TrialPruned
        assert found.difference.low is not None
        trial.set_constraint(_CONSTRAINT, -margin - found.difference.low)
        return found.cost

    study.optimize(objective, n_trials=min(size, trials))
    return list(tried)


def _override(trial: Any, knob: Knob) -> str:
    if isinstance(knob, Choices):
        return f"{knob.key}={trial.suggest_categorical(knob.key, knob.values)}"
    # Places of a list, since steps that add up are 0.7000000000000001, which nobody wants to read.
    return f"{knob.key}={knob.values[trial.suggest_int(knob.key, 0, len(knob.values) - 1)]}"


def _grid(knob: Knob) -> list[Any]:
    return list(knob.values) if isinstance(knob, Choices) else list(range(len(knob.values)))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingDependency("a search needs Optuna: pip install 'decbench[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
