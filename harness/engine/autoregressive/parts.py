"""Calls of a part of the target: verification that goes on from drafts of different depths, and what is refused.

Shapes: B rows, T fed positions of the widest row, C channels, L positions.
"""

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace

import torch
from torch import Tensor

from harness.engine.autoregressive.layers import Begun, RoutesExperts, RunsParts, TapsForDraft, TapsTarget
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.windows import Window, ask
from harness.engine.shared.model import LanguageModel, Models, Part, Taps, experts_of, runs_parts
from harness.engine.shared.policy import acts_as
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.records import Ledger, Role
from harness.errors import ConfigError, FieldError


def ask_groups(
    model: LanguageModel,
    window: Window,
    groups: Iterable[tuple[Part, Tensor]],
    sequences: Sequences,
    ledger: Ledger,
    role: Role,
) -> Prediction:
    """Return what the model predicts where each group of rows, a mask [B], runs a part of its own: a call per part.

    Entries stand in the order of one call. The taps of the window's part keep the states of all groups, 0 where a row
    did not pass.
    """
    wanted = Taps(()) if window.part is None else window.part.taps
    said: list[Prediction] = []
    for part, mine_B in groups:
        busy_R = mine_B.nonzero().squeeze(1)
        if not len(busy_R):
            continue
        own = replace(
            window,
            start_B=torch.where(mine_B, window.start_B, window.end_B),
            busy_R=None if len(busy_R) == len(mine_B) else busy_R,
            part=replace(part, taps=Taps(wanted.depths)),
        )
        said.append(ask(model, own, sequences, ledger, role))
        assert own.part is not None
        for depth, x_BTC in own.part.taps.states.items():
            _keep(wanted, depth, x_BTC, mine_B, width=int((window.end_B - window.start_B).max()))
    return Prediction.together(said)


def _keep(taps: Taps, depth: int, x_BTC: Tensor, mine_B: Tensor, *, width: int) -> None:
    kept_BTC = taps.states.get(depth)
    if kept_BTC is None:
        kept_BTC = taps.states[depth] = x_BTC.new_zeros(len(mine_B), width, x_BTC.shape[2])
    kept_BTC[mine_B, : x_BTC.shape[1]] = x_BTC[mine_B]


def groups_begun(window: Window, begun: Begun | None) -> Iterator[tuple[Part, Tensor]]:
    """Yield what is run where drafts have passed the first layers already, the others, with the mask of these rows."""
    part = Part() if window.part is None else window.part
    if begun is None:
        yield part, torch.ones_like(window.start_B, dtype=torch.bool)
        return
    for depth in begun.layers_B.unique().tolist():
        states_BTC = begun.states_BTC if depth else None
        yield replace(part, first=depth, states_BTC=states_BTC), begun.layers_B == depth


def groups_apart(groups: Iterable[tuple[Part, Tensor]], sample_B: Tensor) -> Iterator[tuple[Part, Tensor]]:
    """Yield the groups parted: the first row of every sample, the second of every sample, and so on."""
    number_B = (sample_B[:, None] == sample_B).tril(-1).sum(1)
    whole = list(groups)
    for number in range(int(number_B.max()) + 1):
        for part, mine_B in whole:
            yield part, mine_B & (number_B == number)


def running_parts(method: AutoregressiveMethod) -> Iterator[tuple[str, RunsParts]]:
    """Yield the slots of a method whose policies run a part of a model, with these."""
    for slot in fields(method):
        if isinstance(one := getattr(method, slot.name), RunsParts):
            yield slot.name, one


def part_of(method: AutoregressiveMethod, sequences: Sequences, role: Role, model: LanguageModel) -> Part | None:
    """Return what a call of the target runs, on what, and which states it shows; None if plain."""
    layers = model.spec.layers
    part, blend = method.layers.part(role, layers), method.feed.blend(sequences)
    if blend is not None:
        part = replace(part or Part(), blend=blend)
    tapped = [one.taps(layers) for one in (method.drafter, method.acceptor) if acts_as(one, TapsTarget)]
    if acts_as(method.drafter, TapsForDraft) and isinstance(model, Models):
        tapped.append(frozenset(method.drafter.taps_for(model)))
    return replace(part or Part(), taps=Taps(frozenset().union(*tapped))) if tapped else part


def refuse_layers(model: LanguageModel, method: AutoregressiveMethod) -> None:
    """Raise ConfigError where a policy asks for a part of a model that has no parts, or not this one."""
    for slot, policy in running_parts(method):
        asked = model
        if isinstance(model, Models):
            asked = model.draft if policy.of_draft else model.target
        if not runs_parts(asked):
            raise ConfigError(
                f"model={asked.spec.name}: runs all of its layers or none, and the {slot} has it run a part of them; "
                f"use a model of the in-tree transformer, a class built as Llama or GPT-2 is, or method=ar_greedy"
            )
        try:
            policy.fit_layers(asked.spec.layers)
            if isinstance(policy, RoutesExperts):
                policy.fit_experts(experts_of(asked))
        except FieldError as error:
            raise ConfigError(f"method.{slot}.{error} (model={asked.spec.name})") from error
