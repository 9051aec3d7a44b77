"""What a round costs: calls, layers and positions of methods equal their closed forms (`docs/drafts.md`)."""

from dataclasses import dataclass

import pytest
import torch

from harness.engine.autoregressive.drafting import Drafter, Round
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.model import LanguageModel, Models
from harness.engine.shared.records import ForwardRecord, Ledger, Role
from harness.models import random as random_models
from harness.models import random_assistant
from methods.autoregressive.aded import TrigramDrafter
from methods.autoregressive.deer import DiffusionDrafter
from methods.autoregressive.dflash import BlockDrafter, WholeLength
from methods.autoregressive.dynamic_exit import DynamicExit
from methods.autoregressive.easyspec import LayersAbreast
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.layer_skip import EarlyExit
from methods.autoregressive.lookahead import Lookahead
from methods.autoregressive.prompt_lookup import PromptLookup
from methods.autoregressive.speculative import ModelDrafter
from methods.autoregressive.swift import Swift
from methods.autoregressive.unified_skip import UnifiedSkip
from tests.engine.causal import PROMPTS, random_causal, run, with_drafts

L, L_D, LENGTH = 8, 5, 24
TARGET, SMALL = random_causal(layers=L, vocabulary=6), random_causal(layers=L_D, seed=1, vocabulary=6)
TEXTS = [[token % 6 for token in prompt] for prompt in PROMPTS[1:4]]


def masked() -> LanguageModel:
    """Return a masked-diffusion model of random weights."""
    return random_models.load(name="draft", kind="masked_diffusion", seed=3, max_length=64, dtype=torch.float64).model


@dataclass
class Cost:
    """Calls of one round: those that drafted, and those of the target; `text` is how much was committed before."""

    drafted: int
    nodes: int
    text: int
    drafts: list[ForwardRecord]
    target: list[ForwardRecord]

    @property
    def loads(self) -> tuple[float, float]:
        """Layers that were loaded to draft, and to verify."""
        drafts, target = (sum(record.layers for record in side) for side in (self.drafts, self.target))
        return drafts, target

    @property
    def positions(self) -> tuple[list[int], list[int]]:
        """Positions of each call, to draft and to verify."""
        drafts, target = ([int(record.query_B) for record in side] for side in (self.drafts, self.target))
        return drafts, target


def costs(method: AutoregressiveMethod, model: LanguageModel = TARGET, length: int = LENGTH) -> list[Cost]:
    """Return what every round behind the prompts' cost, of rows alone; the columns of drafts must add up to it."""
    found: list[Cost] = []
    for text in TEXTS:
        ledger, seen, mine = Ledger(), 0, []

        def watch(completed: Round, ledger: Ledger = ledger, mine: list[Cost] = mine) -> None:
            nonlocal seen
            records = [record for record in ledger.records[seen:] if record.role is not Role.HEAD]
            seen = len(ledger.records)
            mine.append(
                Cost(
                    drafted=int(completed.n_drafted_B),
                    nodes=int(completed.proposal.fed_B),
                    text=int(completed.before.length_B),
                    drafts=[record for record in records if record.role is Role.DRAFT],
                    target=[record for record in records if record.role is not Role.DRAFT],
                )
            )

        run(model, method, [text], length, ledger=ledger, observers=[watch])
        (loads,), (drafting,) = ledger.loads([0]), ledger.drafting([0])
        assert loads.layer_loads == sum(sum(cost.loads) for cost in mine)
        if drafting is not None:
            assert drafting.layer_loads_draft == sum(cost.loads[0] for cost in mine)
            assert drafting.query_tokens_draft == sum(sum(cost.positions[0]) for cost in mine)
            assert drafting.draft_tokens == sum(cost.drafted for cost in mine)
        first, *rounds = mine
        assert (first.loads, first.positions) == ((0, L), ([], [len(text)])), "the prompt's call drafts nothing"
        found += rounds
    assert found
    return found


def verified(cost: Cost) -> None:
    """Hold the target's side to its form: one call of all layers, over the drafts and the token before them."""
    assert (cost.loads[1], cost.positions[1]) == (L, [cost.drafted + 1])


@pytest.mark.parametrize("drafts", [0, 1, 4])
@pytest.mark.parametrize("drafter", [ModelDrafter(), LayersAbreast(N=2), LayersAbreast(N=2, calibrate=False)])
def test_a_model_that_drafts(drafter: Drafter, drafts: int) -> None:
    """g L_d + L: g calls, the first of which feeds what the draft lacks; that of easyspec calibrates meanwhile."""
    lacks = []
    for cost in costs(with_drafts(Greedy(), drafter, drafts), Models(TARGET, SMALL)):
        verified(cost)
        assert cost.loads[0] == cost.drafted * L_D and len(cost.drafts) == cost.drafted <= drafts
        assert cost.positions[0][1:] == [1] * (cost.drafted - 1) if cost.drafted else not cost.positions[0]
        lacks += cost.positions[0][:1]
    assert not drafts or min(lacks) >= 1


def test_critical_depth_is_shorter_where_layers_are_abreast() -> None:
    """A draft behind the first waits for (2 + ceil((L_d - 2) / N) + L_d) / 2 layers; loads are the plain draft's."""
    for cost in costs(with_drafts(Greedy(), LayersAbreast(N=2), 4), Models(TARGET, SMALL)):
        depths = [record.layers if record.depth is None else record.depth for record in cost.drafts]
        assert depths == [L_D, *[(2 + 2 + L_D) / 2] * (cost.drafted - 1)][: cost.drafted]
        assert cost.loads[0] == cost.drafted * L_D


@pytest.mark.parametrize("exit_layer", [1, 5])
def test_first_layers_that_draft(exit_layer: int) -> None:
    """G E + L, as g + 1 calls of E layers, the last of which only passes a draft on, and one of the L - E others."""
    for cost in costs(with_drafts(Greedy(), EarlyExit(exit=exit_layer), 3)):
        calls = cost.drafted + 1 if cost.drafted else 0
        assert sum(cost.loads) == cost.drafted * exit_layer + L
        assert (cost.positions[0], cost.positions[1]) == ([1] * calls, [cost.drafted + 1])
        assert cost.loads[1] == (L - exit_layer if calls else L)


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_exit_that_is_chosen(dynamic: bool) -> None:
    """G E + L with the exit E of the round, whatever it is."""
    exits = set()
    for cost in costs(with_drafts(Greedy(), DynamicExit(dynamic_length=dynamic), 18)):
        if cost.drafted:
            (chosen,) = {record.layers for record in cost.drafts}
            exits.add(chosen)
            assert sum(cost.loads) == cost.drafted * chosen + L and len(cost.drafts) == cost.drafted + 1
        else:
            assert cost.loads == (0, L)
        assert cost.positions[1] == [cost.drafted + 1]
    assert exits


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_parts_of_layers_that_draft(threshold: float) -> None:
    """G (kept halves) / 2 + L; without a search, int(2 (L - 2) r) halves are skipped."""
    kept = L - int(2 * (L - 2) * 0.45) / 2
    for cost in costs(with_drafts(Greedy(), Swift(threshold=threshold, max_opt_iter=0), 5)):
        verified(cost)
        assert cost.loads[0] == cost.drafted * kept and cost.positions[0] == [1] * cost.drafted


def test_a_search_costs_a_call_of_its_window() -> None:
    """Each try of a set of parts computes the window once, by what the set leaves."""
    window, swift = 3, Swift(threshold=0.0, bayes_interval=0, context_window=3)
    kept, tries = L - int(2 * (L - 2) * 0.45) / 2, 0
    for cost in costs(with_drafts(Greedy(), swift, 5)):
        verified(cost)
        tried = int(cost.positions[0][:1] == [window])
        tries += tried
        assert cost.loads[0] == (cost.drafted + tried) * kept
        assert cost.positions[0] == [window] * tried + [1] * cost.drafted
    assert tries > 2


def test_a_comb_of_candidates() -> None:
    """G (kept halves) / 2 + L as without it; the call computes 1 + the candidates of all g places."""
    kept = L - int(2 * (L - 2) * 0.45) / 2
    drafter = Swift(threshold=0.0, max_opt_iter=0, tree=(4, 4, 4, 4))
    found = costs(with_drafts(Greedy(), drafter, 5))
    for cost in found:
        places = len(cost.drafts)
        assert (cost.loads, cost.positions) == ((places * kept, L), ([1] * places, [1 + 4 * places]))
        assert cost.drafted == 4 * places
    assert max(len(cost.drafts) for cost in found) == 5


@pytest.mark.parametrize("drafter", [PromptLookup(), TrigramDrafter(iterations=20)])
def test_a_table_that_drafts(drafter: Drafter) -> None:
    """L: drafts cost the target's positions alone, of trees all nodes."""
    found = costs(with_drafts(Greedy(), drafter, 6))
    for cost in found:
        verified(cost)
        assert cost.drafts == []
    assert any(cost.drafted > 1 for cost in found)


def test_a_window_that_runs_ahead() -> None:
    """L, over (N - 1) W positions of the window, the last token among them, and N - 1 of each branch."""
    drafter = Lookahead(N=4, W=5, G=3)
    found = costs(with_drafts(Greedy(), drafter, 20))
    for cost in found:
        assert (cost.loads, cost.positions) == ((0, L), ([], [cost.nodes + 1]))
    # The window gets a row with each of the first calls, and loses a column: f + 1 rows of W + N - 2 - f.
    assert [cost.nodes + 1 for cost in found[:3]] == [7, 2 * 6, 3 * 5]
    full = [cost for cost in found if cost.drafted]
    assert len(full) > 3 and all(cost.nodes + 1 == 3 * 5 + cost.drafted for cost in full)


def test_a_diffusion_model_that_drafts() -> None:
    """L_d + L: one call over the text and as many masks as there may be drafts."""
    draft = masked()
    for cost in costs(with_drafts(Greedy(), DiffusionDrafter(), 4), Models(TARGET, draft)):
        verified(cost)
        if cost.drafts:
            assert cost.loads[0] == draft.spec.layers
            (positions,) = cost.positions[0]
            assert cost.text < positions <= cost.text + 4 and positions - cost.text >= cost.drafted
        else:
            assert cost.drafted == 0


def test_layers_that_are_skipped_while_decoding() -> None:
    """K of L layers in every call behind the prompt's, which runs all."""
    for speedup in (1.0, 2.0, 4.0):
        found = costs(AutoregressiveMethod(acceptor=Greedy(), layers=UnifiedSkip(speedup=speedup)))
        assert all((cost.loads, cost.positions) == ((0, L // speedup), ([], [1])) for cost in found)


def test_an_assistant_that_drafts() -> None:
    """L_d + L: one call over the block, whatever there is room for; the text costs it keys alone."""
    shape = {"width": 16, "heads": 2, "reads": (1, 6), "block_size": 6, "mask_id": 5, "layers": L_D}
    draft = random_assistant.load(name="draft", max_length=64, dtype=torch.float64, **shape).model
    method = AutoregressiveMethod(acceptor=Greedy(), drafter=BlockDrafter(), draft_length=WholeLength())
    for cost in costs(method, Models(TARGET, draft)):
        verified(cost)
        assert (cost.loads[0], cost.positions[0]) == ((L_D, [6]) if cost.drafted else (0, []))
        assert cost.drafted <= 5
