"""SWIFT's search for the layers to skip, inside an answer: proposals, at random or by a Gaussian process, and scores.

Paper: Xia et al., arXiv:2410.06916, section 4.2; released code: hemingkx/SWIFT, model/swift. See `swift`.
Shapes: B rows, H halves of layers (`harness.engine.shared.model.Part`), F halves that may be skipped, P proposals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.errors import MissingDependency


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When a search proposes, and when it ends; the published names."""

    opt_interval: int
    bayes_interval: int
    max_opt_iter: int
    max_tolerance: int
    max_score: float
    context_window: int


@dataclass(kw_only=True)
class Search:
    """The searches of the rows of a batch: what is skipped, the best score, and what has been tried.

    `skipped_BH` are the halves that are skipped now; `best_B` their score, 0 for those that a search began with.
    Tried `points_BPF` in [0, 1] have `scores_BP`, not a number where a row has tried nothing.
    """

    skipped_BH: Tensor
    best_B: Tensor
    tolerance_B: Tensor
    tried_B: Tensor
    done_B: Tensor
    points_BPF: Tensor
    scores_BP: Tensor

    @classmethod
    def begin(cls, skipped_H: Tensor, rows: int) -> "Search":
        """Return searches that begin with one set, of whose halves all but those of both ends may be skipped."""
        nothing_B = torch.zeros(rows, dtype=torch.int64, device=skipped_H.device)
        free = len(skipped_H) - 4
        return cls(
            skipped_BH=skipped_H.expand(rows, -1).clone(),
            best_B=nothing_B.double(),
            tolerance_B=nothing_B,
            tried_B=nothing_B,
            done_B=nothing_B.bool(),
            points_BPF=nothing_B.double()[:, None, None].expand(rows, 0, max(0, free)),
            scores_BP=nothing_B.double()[:, None].expand(rows, 0),
        )

    def with_room(self, tried: int) -> "Search":
        """Return searches that have tried nothing, beside others that have tried so many sets."""
        rows, _, free = self.points_BPF.shape
        return replace(
            self,
            points_BPF=self.points_BPF.new_zeros(rows, tried, free),
            scores_BP=self.scores_BP.new_full((rows, tried), torch.nan),
        )

    def due(self, rules: Rules, rounds_B: Tensor, generated_B: Tensor) -> Tensor:
        """Return the rows [B] that try another set, so many rounds with drafts and tokens behind them."""
        enough_B = generated_B > rules.context_window + 1
        return ~self.done_B & enough_B & (rounds_B % rules.opt_interval == 0)

    def proposals(self, rules: Rules, due_B: Tensor, uniform_BF: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sets [B, H] that rows try, and the points [B, F] that stand for them; others keep their own."""
        count_B = self.skipped_BH.sum(1)
        bayes_B = torch.zeros_like(due_B)
        if rules.bayes_interval:
            bayes_B = due_B & ((self.tried_B + 1) % rules.bayes_interval == 0)
        wanted_BF = uniform_BF.double().clone()
        for row in bayes_B.nonzero()[:, 0].tolist():
            known_P = ~self.scores_BP[row].isnan()
            wanted_BF[row] = suggested(self.points_BPF[row][known_P], self.scores_BP[row][known_P])
        chosen_BF = _largest(wanted_BF, count_B)
        sets_BH = self.skipped_BH.clone()
        sets_BH[due_B, 2:-2] = chosen_BF[due_B]
        return sets_BH, torch.where(bayes_B[:, None], wanted_BF, chosen_BF.double())

    def learned(self, rules: Rules, due_B: Tensor, sets_BH: Tensor, points_BF: Tensor, score_B: Tensor) -> "Search":
        """Return the searches that know the scores of what rows have tried."""
        better_B = due_B & (score_B > self.best_B)
        best_B = torch.where(better_B, score_B, self.best_B)
        tried_B = self.tried_B + due_B
        tolerance_B = torch.where(better_B, 0, self.tolerance_B + due_B)
        ended_B = (better_B & (best_B > rules.max_score)) | (tolerance_B > rules.max_tolerance)
        return replace(
            self,
            skipped_BH=torch.where(better_B[:, None], sets_BH, self.skipped_BH),
            best_B=best_B,
            tolerance_B=tolerance_B,
            tried_B=tried_B,
            done_B=self.done_B | (due_B & (ended_B | (tried_B > rules.max_opt_iter))),
            points_BPF=torch.cat([self.points_BPF, points_BF[:, None]], 1),
            scores_BP=torch.cat([self.scores_BP, score_B.where(due_B, torch.nan)[:, None]], 1),
        )


def _largest(wanted_BF: Tensor, count_B: Tensor) -> Tensor:
    """Return the mask [B, F] of the `count_B` largest entries of each row."""
    rank_BF = wanted_BF.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return rank_BF < count_B[:, None]


def require_optimiser() -> Any:
    """Return optuna, quiet; raise MissingDependency where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise MissingDependency(
            "method.bayes_interval: the Bayesian search needs optuna: pip install 'decbench[search]', or search at "
            "random with method.bayes_interval=0"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def suggested(points_PF: Tensor, scores_P: Tensor) -> Tensor:
    """Return the point [F] that a Gaussian process over tried points (Matern 5/2) expects most of; the same always."""
    optuna = require_optimiser()
    names: Sequence[str] = [f"{half:04d}" for half in range(points_PF.shape[1])]
    space = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in names}
    sampler = optuna.samplers.GPSampler(seed=1, n_startup_trials=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for point, score in zip(points_PF.tolist(), scores_P.tolist(), strict=True):
        params = dict(zip(names, point, strict=True))
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=score))
    # It follows gradients of its own, which decoding has turned off.
    with torch.inference_mode(False), torch.enable_grad():
        asked = study.ask(space).params
    return torch.tensor([asked[name] for name in names], dtype=torch.float64, device=points_PF.device)
