"""What is counted, and to whom it is charged."""

from dataclasses import replace

import torch

from harness.engine.shared.model import ForwardRequest, Part
from harness.engine.shared.records import Charge, Counts, Ledger, Role
from tests.engine.causal import random_causal

MODEL = random_causal()


def charge(ledger: Ledger, role: Role, samples: list[int], *, query: int = 3, part: Part | None = None) -> None:
    """Call the model once, with a row per entry of `samples`, each reading one position."""
    rows = len(samples)
    charged = Charge(
        role=role,
        sample_B=torch.tensor(samples),
        query_B=torch.full((rows,), query),
        keys_B=torch.full((rows,), query),
        head_B=torch.ones(rows, dtype=torch.int64),
    )
    ledger.call(MODEL, ForwardRequest(torch.ones(rows, query, dtype=torch.int64), part=part), charged)


def counts(**changes: int) -> Counts:
    """Return counts that are 0 but for `changes`."""
    return Counts(**(dict.fromkeys(Counts.__dataclass_fields__, 0) | changes))


def test_two_rows_of_one_sample_are_one_call_and_twice_the_work():
    """Guards the definition that guidance and parallel drafts are compared by."""
    ledger = Ledger()
    charge(ledger, Role.TARGET, [7, 4, 7])
    assert ledger.counts([4, 7]) == [
        counts(nfe=1, nfe_total=1, query_tokens=3, layer_tokens=6, head_tokens=1),
        counts(nfe=1, nfe_total=2, query_tokens=6, layer_tokens=12, head_tokens=2),
    ]


def test_a_sample_pays_for_the_calls_that_it_was_in():
    """Guards against charging finished rows for the rest of their batch; absent samples cost nothing."""
    ledger = Ledger()
    charge(ledger, Role.TARGET, [0, 1])
    charge(ledger, Role.TARGET, [1])
    assert [one.nfe for one in ledger.counts([1, 0, 2])] == [2, 1, 0]


def test_a_prompt_s_call_counts_where_it_gives_a_token():
    """Guards calls per token across families: what commits a token is a call, and reading the prompt is work."""
    ledger = Ledger()
    charge(ledger, Role.PREFILL, [0], query=5)
    work = dict(nfe_total=1, query_tokens=5, prefill_tokens=5, layer_tokens=10, nfe_prefill=1)
    assert ledger.counts([0]) == [counts(nfe=1, head_tokens=1, **work)]
    unread = Ledger(records=[replace(ledger.records[0], head_B=torch.tensor([0]))])
    assert unread.counts([0]) == [counts(**work)]


def test_drafts_are_work_and_not_target_calls():
    """Guards speculative methods: calls of the drafter count in the work, not in the calls of the model."""
    ledger = Ledger()
    charge(ledger, Role.DRAFT, [0])
    charge(ledger, Role.VERIFY, [0])
    charge(ledger, Role.CACHE, [0])
    (found,) = ledger.counts([0])
    assert (found.nfe, found.nfe_draft, found.nfe_cache, found.nfe_total) == (2, 1, 1, 3)


def test_layers_that_were_skipped_are_not_charged():
    """Guards the unit of layer reuse and early exit."""
    ledger = Ledger()
    charge(ledger, Role.TARGET, [0], part=Part(end=1))
    charge(ledger, Role.TARGET, [0])
    assert ledger.counts([0])[0].layer_tokens == 3 * 1 + 3 * MODEL.spec.layers


def test_calls_are_timed_on_demand():
    """Guards throughput: timing synchronises the device."""
    plain, timed = Ledger(), Ledger(timed=True)
    charge(plain, Role.TARGET, [0])
    charge(timed, Role.TARGET, [0])
    assert plain.records[0].seconds is None
    assert timed.records[0].seconds is not None and timed.records[0].seconds >= 0
    assert plain.seconds_of([0]) == [None] and timed.seconds_of([0]) == [timed.records[0].seconds]


class Planned:
    """A model of two layers that leaves the work to its plan."""

    spec, device = MODEL.spec, MODEL.device

    def forward(self, request: ForwardRequest) -> torch.Tensor:
        """Return nothing of use."""
        return torch.zeros(1, MODEL.spec.vocab_size)


class EveryOther:
    """A plan that computes some of three positions in each of two layers, as far as counts are concerned."""

    def __init__(self, layer_tokens: int) -> None:
        self.layer_tokens_B = torch.tensor([layer_tokens])


def test_no_call_reuses_less_than_nothing():
    """Guards reused positions of a plan whose queries see fewer keys, on the mean, than it computes."""
    for layer_tokens, keys, reused in ((4, 3, 1), (6, 2, 0)):
        ledger = Ledger(traced=True)
        charged = Charge(
            sample_B=torch.tensor([0]), query_B=None, keys_B=torch.tensor([keys]), head_B=torch.tensor([1])
        )
        planned = ForwardRequest(torch.ones(1, 3, dtype=torch.int64), plan=EveryOther(layer_tokens))
        ledger.call(Planned(), planned, charged)
        assert ledger.records[0].reused_B.tolist() == [reused]
