"""THE draft-verify loop: draft some tokens, a chain or a tree, score them in one call, keep what the model confirms.

One function serves every autoregressive method; an empty draft is plain decoding, so a method and its baseline
run the same code. Shapes: B rows, L positions, T tokens of a round.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.engine.autoregressive.asking import Asks, WritesOn
from harness.engine.autoregressive.branching import fork
from harness.engine.autoregressive.drafting import (
    Drafter,
    DraftsStepwise,
    LearnsFromRounds,
    Proposal,
    Round,
    ShowsStates,
    StopsDrafting,
    Verdict,
)
from harness.engine.autoregressive.endings import Endings
from harness.engine.autoregressive.entrance import Begins, Entrance, everyone
from harness.engine.autoregressive.method import AutoregressiveMethod, EmptyDrafter
from harness.engine.autoregressive.parts import ask_groups, groups_apart, groups_begun, part_of, refuse_layers
from harness.engine.autoregressive.segments import Segment, segmented, slot_of
from harness.engine.autoregressive.sequences import Sequences, first, is_stop, write_behind
from harness.engine.autoregressive.twins import WeighsTwins, pairs, with_twins
from harness.engine.autoregressive.windows import Window, ask
from harness.engine.shared.generation import Generation
from harness.engine.shared.indexing import filled, positions
from harness.engine.shared.kv_tree import TreeStore
from harness.engine.shared.model import LanguageModel, ModelKind, Part, Store
from harness.engine.shared.policy import acts_as
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.records import Ledger, Role
from harness.engine.shared.routing import Routing, Twins
from harness.errors import ConfigError

RoundObserver = Callable[[Round], None]
"""Sees every round of all rows; must not change what it sees."""


@torch.inference_mode()
def decode(
    model: LanguageModel,
    method: AutoregressiveMethod,
    prompts: Sequence[Sequence[int]],
    *,
    gen_length: int,
    seeds: Sequence[int],
    ledger: Ledger,
    observers: Sequence[RoundObserver] = (),
    on_progress: Callable[[int, int], None] = lambda finished, calls: None,
    on_finished: Callable[[list[Generation]], None] = lambda made: None,
    readable: Callable[[int, Sequence[int]], bool] = lambda sample, tokens: True,
    begins: Begins = everyone,
) -> list[Generation]:
    """Continue every prompt by up to `gen_length` tokens and return the generations in the order of the prompts.

    A generation ends with its first stop token. Rows are independent: prompts of any lengths share a batch
    without being shifted, and a row leaves the batch when it is finished. `begins` says how many samples begin beside
    those that go on (`Entrance`; default: all at once). A sample may have several rows, which fork and are pruned
    (`method.branching`), all of them charged to it. The prefill is round 0 and emits the first token; rows that begin
    beside others have one of their own. `model` is the target, or `Models` where another one drafts for it.

    `on_progress` is told after each round how many samples are finished and how many rounds there were, `on_finished`
    of samples that have finished. `readable` says of a sample and the tokens of a row that has ended whether there is
    an answer in them. Raises DecodeError for logits that are not numbers.
    """
    assert model.spec.kind is ModelKind.CAUSAL, f"{model.spec.name} is not a causal model"
    refuse_layers(model, method)
    entrance = Entrance(
        model=model, prompts=prompts, seeds=seeds, gen_length=gen_length, nodes=_nodes(method.drafter), begins=begins
    )
    endings = Endings(branching=method.branching, stop_ids=model.spec.stop_ids, readable=readable)

    def settled(completed: Round) -> Sequences | None:
        """Return the rows that go on from a round, None where nobody does."""
        if not isinstance(method.drafter, EmptyDrafter):
            ledger.rounds.append(completed.record())
        for part in (method.draft_length, method.drafter):
            if acts_as(part, LearnsFromRounds):
                part.update(completed)
        for observer in observers:
            observer(completed)
        going_on, ended = endings.take(method.revision(completed.after, model.spec.stop_ids), completed)
        on_progress(len(endings.results), endings.rounds)
        if ended:
            on_finished(ended)
        return going_on

    going_on: Sequences | None = None
    while True:
        while (fresh := entrance.take(going_on, endings)) is not None:
            begun = settled(take_round(model, method, fresh, Proposal.empty(fresh), ledger))
            if begun is not None:
                going_on = begun if going_on is None else going_on.joined(begun)
        if going_on is None:
            return sorted(endings.results, key=lambda generation: generation.sample)
        going_on = settled(take_round(model, method, going_on, propose(model, method, going_on, ledger), ledger))


def propose(model: LanguageModel, method: AutoregressiveMethod, sequences: Sequences, ledger: Ledger) -> Proposal:
    """Return drafts that leave room for the token which the model adds to them.

    What is computed beside them may reach as far as the model's positions. Raise ConfigError for a tree larger than its
    drafter says, and for a model that no tree can be scored on.
    """
    drafter, length = method.drafter, method.draft_length
    if isinstance(drafter, EmptyDrafter):
        return Proposal.empty(sequences)
    room_B = sequences.limit_B - sequences.length_B - 1
    limit_B = torch.minimum(length.limit(sequences), room_B)
    if acts_as(length, StopsDrafting) and acts_as(drafter, DraftsStepwise):
        propose_on, keep_going = drafter.propose_while, length.keep_going
        if getattr(length, "reads_states", False) and acts_as(drafter, ShowsStates):
            propose_on = drafter.propose_shown
        proposal = propose_on(model, sequences, limit_B, ledger, keep_going)
    else:
        proposal = drafter.propose(model, sequences, limit_B, ledger)
    if proposal.parent_BK is not None:
        _refuse_tree(model, drafter, int(proposal.fed_B.max()), sequences.store)
    return proposal.clip(limit_B, model.spec.max_length - sequences.length_B)


def _nodes(drafter: Drafter) -> int:
    """Return of how many tokens per row a drafter's trees are at most, those beside drafts included; 0 of chains."""
    return getattr(drafter, "nodes", 0)


def _refuse_tree(model: LanguageModel, drafter: Drafter, width: int, store: Store) -> None:
    name = type(drafter).__name__
    if width > _nodes(drafter):
        raise ConfigError(
            f"{name}.nodes={_nodes(drafter)}: a tree of {width} tokens is wider than that; draft fewer, or have "
            f"nodes be {width}"
        )
    if not isinstance(store, TreeStore):
        raise ConfigError(
            f"model={model.spec.name}: keeps its keys and values in order, and {name} drafts trees; use a method "
            "that drafts a chain, such as prompt_lookup"
        )


def take_round(
    model: LanguageModel,
    method: AutoregressiveMethod,
    sequences: Sequences,
    proposal: Proposal,
    ledger: Ledger,
) -> Round:
    """Score the drafts in one call and commit those that stand, with the model's own token behind them."""
    role = _role(sequences, proposal)
    part = part_of(method, sequences, role, model)
    twin = method.acceptor.twin(sequences, model.spec.layers) if acts_as(method.acceptor, WeighsTwins) else None
    beside = None
    if twin is not None:
        sequences = with_twins(model, sequences)
        prediction, beside = evaluate_twins(model, sequences, ledger, part, twin)
    else:
        ask_rows = evaluate if method.branching.synchronous else evaluate_apart
        prediction = ask_rows(model, sequences, proposal, ledger, part)
    states = {} if part is None else part.taps.states
    if (spread := method.branching.spread(prediction, sequences)) is not None:
        assert not proposal.tokens_BK.shape[1], "rows fork where nothing was drafted"
        prediction.require_numbers(sequences.sample_B)  # a row that is pruned would not tell
        sequences, prediction = fork(sequences, spread), prediction.rows(spread.index_B)
        beside = None if beside is None else beside.rows(spread.index_B)
        states = {depth: x_BTC.index_select(0, spread.index_B) for depth, x_BTC in states.items()}
        proposal = Proposal.empty(sequences)
    if beside is not None:
        assert isinstance(method.acceptor, WeighsTwins)
        verdict = method.acceptor.weigh(prediction, beside, sequences)
    elif acts_as(method.acceptor, WritesOn):
        assert part is not None and not proposal.tokens_BK.shape[1]
        verdict = method.acceptor.write(model, prediction, _last(part, states, sequences), sequences, ledger)
    elif acts_as(method.acceptor, Asks):
        verdict = method.acceptor.judge(model, prediction, proposal, sequences, ledger)
    else:
        verdict = method.acceptor(prediction, proposal, sequences)
    after = _commit(sequences, proposal, verdict, model.spec.stop_ids)
    if getattr(method.feed, "merges", False):
        after = segmented(sequences, after)
    margin_B = _token_margin(verdict, sequences, after)
    return Round(
        role=role,
        before=sequences,
        proposal=proposal,
        prediction=prediction,
        verdict=verdict,
        after=replace(after, token_margin_B=torch.minimum(sequences.token_margin_B, margin_B)),
        token_margin_B=margin_B,
        states=states,
    )


def _last(part: Part, states: Mapping[int, Tensor], sequences: Sequences) -> Mapping[int, Tensor]:
    """Return the states [B, C] of the taps behind the last token of each row."""
    fed_B = sequences.length_B - sequences.computed_B
    last_B = torch.zeros_like(fed_B) if isinstance(part.blend, Segment) else fed_B - 1
    row_B = torch.arange(len(fed_B), device=fed_B.device)
    return {depth: x_BTC[row_B, last_B] for depth, x_BTC in states.items()}


def _token_margin(verdict: Verdict, before: Sequences, after: Sequences) -> Tensor:
    """Return the smallest gap of the emitted tokens: also where a draft stood, the model's choice decided."""
    gap_BT = verdict.token_gap_BT
    if gap_BT is None:
        return torch.full_like(before.length_B, torch.inf, dtype=torch.float64)
    if gap_BT.shape[1] == 1:
        return gap_BT[:, 0]
    count_B = after.length_B - before.length_B
    return gap_BT.masked_fill(~first(count_B, gap_BT.shape[1]), torch.inf).amin(1)


def evaluate(
    model: LanguageModel, sequences: Sequences, proposal: Proposal, ledger: Ledger, part: Part | None = None
) -> Prediction:
    """Return the prediction for each drafted position and the one behind; one call of the model.

    Fed are the committed tokens that the store lacks (after the prefill that is the last one) and the drafts. `part` is
    what is run, None for all. Rows whose drafts have passed different layers already take a call for each depth.
    """
    window, role = _window(model, sequences, proposal, part), _role(sequences, proposal)
    if proposal.begun is None:
        return ask(model, window, sequences, ledger, role, checked=False)
    return ask_groups(model, window, groups_begun(window, proposal.begun), sequences, ledger, role)


def evaluate_twins(
    model: LanguageModel, sequences: Sequences, ledger: Ledger, part: Part | None, twin: Routing
) -> tuple[Prediction, Prediction]:
    """Return what is predicted of each row, and of its twin by another routing; one call of the model for both."""
    part, width = part or Part(), int((sequences.length_B - sequences.computed_B).max())
    assert part.blend is None and not tuple(part.taps.depths), "twins are fed tokens, and nobody looks at their states"
    own = Routing() if part.routing is None else part.routing
    assert isinstance(own, Routing)
    both = pairs(sequences)
    routed = replace(part, routing=Twins(own=own, twin=twin, width=width))
    said = evaluate(model, both, Proposal.empty(both), ledger, routed)
    said.require_numbers(both.sample_B)
    first_B = torch.arange(0, both.num_rows, 2)
    return said.rows(first_B), said.rows(first_B + 1)


def evaluate_apart(
    model: LanguageModel, sequences: Sequences, proposal: Proposal, ledger: Ledger, part: Part | None = None
) -> Prediction:
    """Return what `evaluate` does, by a call for the first row of every sample, one for the second, and so on."""
    window, role = _window(model, sequences, proposal, part), _role(sequences, proposal)
    groups = groups_apart(groups_begun(window, proposal.begun), sequences.sample_B)
    return ask_groups(model, window, groups, sequences, ledger, role)


def _window(model: LanguageModel, sequences: Sequences, proposal: Proposal, part: Part | None) -> Window:
    tokens_BL, store = sequences.tokens_BL, sequences.store
    if proposal.tree is not None:
        tokens_BL = F.pad(tokens_BL, (0, store.slots - tokens_BL.shape[1]), value=model.spec.pad_id)
    lengths, computed = sequences.told("length_B", "computed_B")
    ends, reads = lengths, [length - 1 for length in lengths]
    read_B = sequences.computed_B if computed == reads else sequences.length_B - 1
    end_B = sequences.length_B
    if proposal.tokens_BK.shape[1]:
        end_B = end_B + proposal.fed_B
        ends = [length + count for length, count in zip(lengths, proposal.fed, strict=True)]
    told = (sequences.computed_B, computed), (end_B, ends), (read_B, reads)
    return Window(
        tokens_BL=write_behind(tokens_BL, sequences.length_B, proposal.tokens_BK, proposal.fed_B),
        start_B=sequences.computed_B,
        end_B=end_B,
        read_B=read_B,
        store=store,
        tree=proposal.tree,
        part=part,
        slot_B=slot_of(sequences) if part is not None and isinstance(part.blend, Segment) else None,
        told=told,
    )


def _role(sequences: Sequences, proposal: Proposal) -> Role:
    (computed,) = sequences.told("computed_B")
    if not any(computed):
        return Role.PREFILL
    return Role.VERIFY if proposal.tokens_BK.shape[1] else Role.TARGET


def _commit(sequences: Sequences, proposal: Proposal, verdict: Verdict, stop_ids: tuple[int, ...]) -> Sequences:
    """Return the sequences with the accepted drafts and the model's token, cut behind the first stop token."""
    emitted_BT, count_B = _emitted(proposal, verdict)
    start_B, asked_B, at_BT = sequences.length_B, verdict.generated_B, sequences.length_B[:, None]
    computed_B, generated_B = start_B, sequences.generated_B + (1 if asked_B is None else asked_B)
    if emitted_BT.shape[1] > 1:
        stops_BT = is_stop(emitted_BT, stop_ids)
        stopped_before_BT = (stops_BT.cumsum(1) - stops_BT.long()) > 0
        count_B = (first(count_B, emitted_BT.shape[1]) & ~stopped_before_BT).sum(1)
        # What is cut repeats the last token.
        last_B = count_B - 1
        place_BT = torch.minimum(positions(emitted_BT.shape[1], start_B.device), last_B[:, None])
        at_BT, emitted_BT = at_BT + place_BT, emitted_BT.gather(1, place_BT)
        computed_B, generated_B = start_B + last_B, generated_B + proposal.count_B
        if verdict.path_BD is not None:
            _move_path(sequences.store, verdict.path_BD, start_B, last_B)
    return replace(
        sequences,
        tokens_BL=sequences.tokens_BL.scatter(1, at_BT, emitted_BT),
        decided_at_BL=sequences.decided_at_BL.scatter(1, at_BT, sequences.rounds_B[:, None].expand_as(at_BT)),
        length_B=start_B + count_B,
        computed_B=computed_B,
        rounds_B=sequences.rounds_B + 1,
        generated_B=generated_B,
        store=sequences.store if verdict.store is None else verdict.store,
    )


def _move_path(store: Store, path_BD: Tensor, start_B: Tensor, count_B: Tensor) -> None:
    """Have the slots from `start_B` on hold keys and values of the first `count_B` tokens of each row's path."""
    assert isinstance(store, TreeStore)
    depth_D = torch.arange(path_BD.shape[1], device=path_BD.device)
    row_N, depth_N = (first(count_B, len(depth_D)) & (path_BD != depth_D)).nonzero(as_tuple=True)
    store.move(row_N, start_B[row_N] + path_BD[row_N, depth_N], start_B[row_N] + depth_N)


def _emitted(proposal: Proposal, verdict: Verdict) -> tuple[Tensor, Tensor]:
    """Return the tokens that stand, the drafts first, and how many of each row."""
    token_B1, accepted_B, path_BD = verdict.token_B[:, None], verdict.accepted_B, verdict.path_BD
    if not proposal.tokens_BK.shape[1] and verdict.further is None:
        return token_B1, filled((len(accepted_B),), 1, torch.int64, accepted_B.device)
    stood_BK = proposal.tokens_BK if path_BD is None else proposal.tokens_BK.gather(1, path_BD)
    emitted_BT = torch.cat([stood_BK, token_B1], 1).scatter(1, accepted_B[:, None], token_B1)
    if verdict.further is None:
        return emitted_BT, accepted_B + 1
    width = verdict.further.tokens_BK.shape[1]
    wide_BT = torch.cat([emitted_BT, emitted_BT.new_zeros(len(accepted_B), width)], 1)
    count_B = accepted_B + 1 + verdict.further.count_B
    return write_behind(wide_BT, accepted_B + 1, verdict.further.tokens_BK, verdict.further.count_B), count_B
