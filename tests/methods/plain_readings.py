"""Decoders read from their papers once more: one row, plain lists, and nothing of the engine but the model."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.engine.shared.model import ForwardRequest, LanguageModel


@dataclass
class Answer:
    """An answer in the making. Places count from the end of the prompt; -1 is the step of what is not decided."""

    model: LanguageModel
    prompt: list[int]
    tokens: list[int]
    decided_at: list[int] = field(default_factory=list)
    calls: int = 0

    def __post_init__(self) -> None:
        self.decided_at = [-1] * len(self.tokens)

    @property
    def end(self) -> int:
        """The end token."""
        return self.model.spec.stop_ids[0]

    def masks(self, start: int = 0, end: int | None = None) -> list[int]:
        """Return the undecided places from `start` to before `end`."""
        return [place for place in range(len(self.tokens))[start:end] if self.decided_at[place] < 0]

    def predict(self) -> Tensor:
        """Return the logits [places, V] of one call."""
        self.calls += 1
        ids_BL = torch.tensor([self.prompt + self.tokens])
        logits_LV = self.model.forward(ForwardRequest(ids_BL, select_N=torch.arange(ids_BL.shape[1]))).double()
        logits_LV[:, self.model.spec.mask_id] = -torch.inf
        return logits_LV[len(self.prompt) :]

    def close(self, places: Iterable[int], tokens: list[int], step: int) -> None:
        """Commit tokens at places."""
        for place in places:
            self.tokens[place], self.decided_at[place] = tokens[place], step


def believe(logits_LV: Tensor) -> tuple[list[int], list[float]]:
    """Return the best tokens and their log p, which stay apart where p itself would be 1."""
    best_L = logits_LV.argmax(-1, keepdim=True)
    others_LV = (logits_LV - logits_LV.gather(1, best_L)).exp().scatter(1, best_L, 0.0)
    return best_L.squeeze(1).tolist(), (-others_LV.sum(1).log1p()).tolist()


def surest(places: list[int], log_p: list[float], count: int) -> list[int]:
    """Return the `count` surest places, the first of equal ones."""
    return sorted(places, key=lambda place: (-log_p[place], place))[:count]


def by_quota(answer: Answer, quotas: list[int], ends: list[int], gamma: Callable[[int], float]) -> None:
    """LLaDA (gamma 1), EOSER and ASS: per step a quota, a place before which to close, and the factor of end tokens."""
    for step, (quota, end) in enumerate(zip(quotas, ends, strict=True)):
        tokens, log_p = believe(answer.predict())
        damped = [
            sure + math.log(gamma(step)) * (token == answer.end) for token, sure in zip(tokens, log_p, strict=True)
        ]
        answer.close(surest(answer.masks(end=end), damped, quota), tokens, step)


def prophet(answer: Answer, region: int | None, thresholds: tuple[float, float, float]) -> None:
    """One token per step, all of them once the mean gap of the first `region` places is clear."""
    steps = len(answer.tokens)
    for step in range(steps):
        logits_LV = answer.predict()
        tokens, log_p = believe(logits_LV)
        best_L2 = logits_LV[:region].sort(-1).values[:, -2:]
        share = (step + 1) / steps
        clear = thresholds[0] if share < 0.33 else thresholds[1] if share < 0.67 else thresholds[2]
        if (best_L2[:, 1] - best_L2[:, 0]).mean() >= clear:
            answer.close(answer.masks(), tokens, step)
            return
        answer.close(surest(answer.masks(), log_p, 1), tokens, step)


def adablock(answer: Answer, length: int, look_ahead: int, theta: float = 0.3, tau: float = 0.9) -> None:
    """Blocks that end with their surest end token, else after `length` places."""
    start, step = 0, 0
    while start < len(answer.tokens):
        tokens, log_p = believe(answer.predict())
        ends = [place for place in range(len(tokens))[start : start + look_ahead] if tokens[place] == answer.end]
        last = surest(ends, log_p, 1)
        found = bool(last) and math.exp(log_p[last[0]]) >= theta
        end = last[0] + 1 if found else start + length
        while True:
            masks = answer.masks(start, end)
            sure = [place for place in masks if math.exp(log_p[place]) >= tau]
            answer.close(sure or surest(masks, log_p, 1), tokens, step)
            step += 1
            if not answer.masks(start, end):
                break
            tokens, log_p = believe(answer.predict())
        start = end


def credit(answer: Answer, tau: float, alpha: float = 0.7, gam: float = 0.2, beta: float = 0.8) -> None:
    """One block; what leads again and again gets a bonus on its logit."""
    credit_LV, step = torch.zeros(()), 0
    while masks := answer.masks():
        logits_LV = answer.predict()
        best_L = logits_LV.softmax(-1).max(-1)
        earned_LV = torch.zeros_like(logits_LV)
        earned_LV[masks, best_L.indices[masks]] = best_L.values[masks] ** gam
        credit_LV = credit_LV * beta + earned_LV
        tokens, log_p = believe(logits_LV + alpha * (1 + credit_LV).log())
        bar = min(max(math.exp(log_p[place]) for place in masks) - 1e-5, tau)
        answer.close([place for place in masks if math.exp(log_p[place]) >= bar], tokens, step)
        step += 1


def ccd(answer: Answer, top_v: int, d: int, *, whole: bool) -> None:
    """Close the consistent place of the least mixed mean; with `whole` all consistent ones that kept their token."""
    history: list[Tensor] = []
    buffers: list[set[int]] = []
    for step in range(len(answer.tokens)):
        logits_LV, masks = answer.predict(), answer.masks()
        tokens, log_p = believe(logits_LV)
        history = [logits_LV.softmax(-1), *history[:d]]
        buffers = [set(surest(masks, log_p, top_v)), *buffers[:d]]
        consistent = sorted(set.intersection(*buffers)) if len(buffers) > d else []
        mean_LV = torch.stack(history).mean(0)
        clear = (mean_LV * mean_LV.clamp(min=1e-300).log()).sum(-1).tolist()
        leaders = [past_LV.argmax(-1).tolist() for past_LV in history]
        kept = [place for place in consistent if len({leader[place] for leader in leaders}) == 1]
        if consistent:
            answer.close(kept if whole and kept else surest(consistent, clear, 1), mean_LV.argmax(-1).tolist(), step)
        else:
            answer.close(surest(masks, log_p, 1), tokens, step)
        if not answer.masks():
            return
