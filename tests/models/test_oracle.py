"""The oracle against brute force: laws by enumeration with fractions, and closed forms of one-step sampling.

Closed forms: with L positions sampled at once from exact marginals, success is the sum over the valid answers of the
product of their marginals.
"""

import math
from collections import Counter
from fractions import Fraction
from itertools import permutations
from random import Random

import pytest
import torch

from harness.config.oracle_factory import load_oracle
from harness.engine.shared.model import ForwardRequest
from harness.errors import DataError
from harness.models.oracle import Oracle
from harness.models.tokenizer import EOS, IDS, MASK, PAD, SymbolTokenizer, ids_of
from tasks.lists.instance import ListInstance
from tasks.lists.operations import OPERATIONS, Argument
from tasks.lists.tiny import TinyRenderer

GEN_LENGTH = 16
TOKENIZER = SymbolTokenizer()
RENDERER = TinyRenderer(max_items=10)
PROMPT_LENGTH = 16


def oracle(kind: str = "masked_diffusion", **options: object) -> Oracle:
    return load_oracle(name="oracle", kind=kind, dtype=torch.float64, **options).model


def make_instance(op: str, n: int, rng: Random) -> ListInstance:
    operation = OPERATIONS[op]
    *items, word = rng.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh", n + 1)
    arguments: dict[str, object] = {"word": word} if operation.takes_word else {}
    if operation.argument in (Argument.INDEX, Argument.COUNT):
        arguments[operation.argument.value] = rng.choice(operation.choices(n, 10))
    return ListInstance(op=op, items=tuple(items), id="x", split="test", seed=0, **arguments)


def padded_answers(instance: ListInstance) -> list[list[int]]:
    """Return the ids of every valid answer over the whole response."""
    end = [IDS[EOS]] * GEN_LENGTH
    return [(ids_of(answer) + end)[:GEN_LENGTH] for answer in instance.answers()]


def row_of(instance: ListInstance, response: list[int]) -> torch.Tensor:
    return torch.tensor([TOKENIZER.encode(RENDERER.prompt(instance)) + response])


def masked(answer: list[int], shown: set[int]) -> list[int]:
    return [t if place in shown else IDS[MASK] for place, t in enumerate(answer)]


def brute_force(answers: list[list[int]], response: list[int], place: int) -> dict[int, Fraction]:
    fits = [a for a in answers if all(r in (IDS[MASK], t) for r, t in zip(response, a, strict=True))]
    return {t: Fraction(c, len(fits)) for t, c in Counter(a[place] for a in fits).items()}


def as_probabilities(logits_V: torch.Tensor) -> dict[int, float]:
    return {int(t): math.exp(logits_V[t]) for t in logits_V.isfinite().nonzero()}


@pytest.mark.parametrize("op", OPERATIONS)
def test_marginals_equal_enumeration_on_random_canvases(op: str) -> None:
    """Guards the laws (the excluded identity above all), the alignment with the prompt, and -inf off the support."""
    rng, model = Random(op), oracle()
    for n in (2, 3, 4, 5, 5, 5):
        instance = make_instance(op, n, rng)
        answers = padded_answers(instance)
        response = masked(rng.choice(answers), set(rng.sample(range(GEN_LENGTH), rng.randrange(GEN_LENGTH))))
        logits_LV = model.forward(ForwardRequest(row_of(instance, response)))[0]
        assert not logits_LV.isnan().any() and not model.inconsistent_B.any()
        for place, logits_V in enumerate(logits_LV[PROMPT_LENGTH:]):
            wanted = brute_force(answers, response, place)
            assert as_probabilities(logits_V) == pytest.approx({t: float(p) for t, p in wanted.items()}, rel=1e-12)


def test_causal_logits_are_the_chain_rule() -> None:
    """Guards the shift and causality: a logit may depend on no later token, and the product is the joint law."""
    instance = make_instance("insert_random", 4, Random(1))
    answers, model = padded_answers(instance), oracle("causal")
    for answer in answers:
        logits_LV = model.forward(ForwardRequest(row_of(instance, answer)))[0, PROMPT_LENGTH - 1 : -1]
        joint = sum(float(logits_V[t]) for logits_V, t in zip(logits_LV, answer, strict=True))
        assert math.exp(joint) == pytest.approx(1 / len(answers))


def test_causal_store_equals_full_forward_and_forgets_rejected_drafts() -> None:
    """Guards the key/value protocol: slots behind a query are invisible, and rewritten ones are replaced."""
    instance, model = make_instance("shuffle", 5, Random(2)), oracle("causal")
    good, bad = padded_answers(instance)[7], padded_answers(instance)[90]
    row_1L, store = row_of(instance, good), model.new_store(1, PROMPT_LENGTH + GEN_LENGTH)
    positions_1L = torch.arange(row_1L.shape[1])[None]
    model.forward(ForwardRequest(row_of(instance, bad)[:, :20], positions_BT=positions_1L[:, :20], kv=store, end=20))
    cached = model.forward(ForwardRequest(row_1L[:, 16:19], positions_BT=positions_1L[:, 16:19], kv=store, end=19))
    assert torch.equal(cached, model.forward(ForwardRequest(row_1L))[:, 16:19])


def test_shuffle_with_identity_counts_all_arrangements() -> None:
    """Guards the flag: without it the first marginal of the item in place is a little smaller."""
    instance = make_instance("shuffle", 4, Random(3))
    row_1L, first = row_of(instance, [IDS[MASK]] * GEN_LENGTH), IDS[instance.items[0]]
    allowed, excluded = (
        oracle(allow_identity=flag).forward(ForwardRequest(row_1L))[0, PROMPT_LENGTH] for flag in (True, False)
    )
    assert as_probabilities(allowed)[first] == pytest.approx(6 / 24)
    assert as_probabilities(excluded)[first] == pytest.approx(5 / 23)


def test_large_shuffle_needs_no_enumeration() -> None:
    """Guards the closed form where 15! answers cannot be listed."""
    items = tuple("ABCDEFGHIJKLMNO")
    instance = ListInstance(op="shuffle", items=items, id="x", split="test", seed=0)
    prompt = TOKENIZER.encode(TinyRenderer(max_items=15).prompt(instance))
    row_1L = torch.tensor([prompt + ids_of("BA") + [IDS[MASK]] * 15])
    logits_LV = oracle().forward(ForwardRequest(row_1L))[0, len(prompt) :]
    assert as_probabilities(logits_LV[2]) == pytest.approx({t: 1 / 13 for t in ids_of("CDEFGHIJKLMNO")})
    assert as_probabilities(logits_LV[16]) == pytest.approx({IDS[EOS]: 1.0})


def test_contradicting_commits_are_ignored_from_the_first_one_on() -> None:
    """Guards the order of the commit history: by step, then position; a wrong order keeps the wrong commits."""
    instance = ListInstance(op="remove_random", items=tuple("ABCD"), id="x", split="test", seed=0)
    _, b, c, d = ids_of("ABCD")
    response = [b, b, c] + [IDS[MASK]] * 13
    row_1L, model = row_of(instance, response), oracle()
    steps = torch.full_like(row_1L, -1)
    steps[0, PROMPT_LENGTH : PROMPT_LENGTH + 3] = torch.tensor([5, 0, 1])
    model.forward(ForwardRequest(row_1L, decided_at_BT=steps))
    assert model.inconsistent_B.tolist() == [True]
    steps[0, PROMPT_LENGTH + 1] = 9
    hidden = row_1L.clone()
    hidden[0, PROMPT_LENGTH + 2] = IDS[MASK]
    steps[0, PROMPT_LENGTH] = 0
    last = model.forward(ForwardRequest(hidden, decided_at_BT=steps))[0, PROMPT_LENGTH + 2]
    assert as_probabilities(last) == pytest.approx({d: 1.0}), "b at place 0 came first: a was removed"
    steps[0, PROMPT_LENGTH] = 10
    last = model.forward(ForwardRequest(hidden, decided_at_BT=steps))[0, PROMPT_LENGTH + 2]
    assert as_probabilities(last) == pytest.approx({c: 1 / 2, d: 1 / 2}), "b at place 1 came first"


def test_committed_tokens_answer_for_themselves_even_if_wrong() -> None:
    """Guards verifying decoders, which compare a committed token with its own logits."""
    instance = make_instance("copy", 3, Random(4))
    foreign = IDS["z"]
    logits_LV = oracle().forward(ForwardRequest(row_of(instance, [foreign] + [IDS[MASK]] * 15)))[0]
    assert as_probabilities(logits_LV[PROMPT_LENGTH]) == {foreign: 1.0}


def test_rows_are_independent_and_padding_reveals_nothing() -> None:
    """Guards batches of unequal lengths, and the per-row inconsistency flag."""
    rng, model = Random(5), oracle()
    rows = [row_of(make_instance(op, 4, rng), [IDS[MASK]] * 16)[0] for op in ("copy", "shuffle")]
    rows[0][-6:] = IDS[PAD]
    rows[1][PROMPT_LENGTH] = IDS["z"]
    select_N = torch.tensor([PROMPT_LENGTH, 32 + PROMPT_LENGTH + 1])
    logits_NV = model.forward(ForwardRequest(torch.stack(rows), select_N=select_N))
    assert model.inconsistent_B.tolist() == [False, True]
    alone = [model.forward(ForwardRequest(row[None]))[0, int(i) % 32] for row, i in zip(rows, select_N, strict=True)]
    assert torch.equal(logits_NV, torch.stack(alone))


def test_hidden_prompt_gives_uniform_logits() -> None:
    """Guards guidance, which shows the model a canvas without its prompt."""
    assert not oracle().forward(ForwardRequest(torch.full((1, 32), IDS[MASK]))).any()


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("<bos> copy <arg> A B <sep>", "the oracle reads"),
        ("<bos> latin <none> <none> <arg> A B <sep>", "'latin' is no list operation"),
        ("<bos> copy #1 <none> <arg> A B <sep>", "index"),
    ],
)
def test_other_prompts_are_refused(prompt: str, named: str) -> None:
    """Guards against silent nonsense on prompts that state no list problem."""
    with pytest.raises(DataError, match=named):
        oracle().forward(ForwardRequest(torch.tensor([[*TOKENIZER.encode(prompt), IDS[MASK]]])))


TOTAL_CORRELATION = {
    "copy": lambda n: 0.0,
    "replace_random": lambda n: (n - 1) * math.log(n / (n - 1)),
    "insert_random": lambda n: (
        math.fsum(
            -p * math.log(p)
            for j in range(1, n + 2)
            for p in (1 / (n + 1), (j - 1) / (n + 1), (n + 1 - j) / (n + 1))
            if p
        )
        - math.log(n + 1)
    ),
    "remove_random": lambda n: (
        math.fsum(-p * math.log(p) for j in range(1, n) for p in (j / n, 1 - j / n)) - math.log(n)
    ),
    "shuffle": lambda n: n * math.log(n) - math.log(math.factorial(n)),
}


@pytest.mark.parametrize("n", [3, 6, 10])
@pytest.mark.parametrize("op", TOTAL_CORRELATION)
def test_dependence_of_the_whole_answer_is_the_closed_form(op: str, n: int) -> None:
    """Guards the instrument that tells how dependent the positions of a step are."""
    instance, model = make_instance(op, n, Random(6)), oracle(allow_identity=True)
    row_L = row_of(instance, [IDS[MASK]] * GEN_LENGTH)[0]
    everything = range(PROMPT_LENGTH, PROMPT_LENGTH + GEN_LENGTH)
    assert model.dependence(row_L, everything) == pytest.approx(TOTAL_CORRELATION[op](n), abs=1e-9)
    assert model.dependence(row_L, everything[:1]) == pytest.approx(0.0, abs=1e-12)


def test_dependence_of_a_partial_shuffle_equals_enumeration() -> None:
    """Guards the closed form of the joint entropy where the identity is excluded and something is revealed."""
    instance, model = make_instance("shuffle", 5, Random(7)), oracle()
    places = (1, 3, 4)
    for shown_first in (instance.items[0], instance.items[1]):
        response = [IDS[shown_first]] + [IDS[MASK]] * 15
        fits = [p for p in permutations(instance.items) if p[0] == shown_first and p != instance.items]
        joint = Counter(tuple(p[i] for i in places) for p in fits).values()
        single = [Counter(p[i] for p in fits).values() for i in places]
        nats = [-math.fsum(c / len(fits) * math.log(c / len(fits)) for c in cs) for cs in (*single, joint)]
        got = model.dependence(row_of(instance, response)[0], [PROMPT_LENGTH + i for i in places])
        assert got == pytest.approx(sum(nats[:-1]) - nats[-1], abs=1e-12)


ONE_STEP_SUCCESS = {
    "copy": lambda n: 1.0,
    "sort": lambda n: 1.0,
    "replace_random": lambda n: (1 - 1 / n) ** (n - 1),
    "insert_random": lambda n: math.factorial(n) * 2**n / (n + 1) ** (n + 1),
    "remove_random": lambda n: math.factorial(n - 1) * 2 ** (n - 1) / n ** (n - 1),
    # n = 3 and 6 with the identity excluded, from the table of closed forms.
    "shuffle": {3: 0.2240, 6: 0.0154}.__getitem__,
}


@pytest.mark.parametrize("n", [3, 6])
@pytest.mark.parametrize("op", ONE_STEP_SUCCESS)
def test_one_step_sampling_succeeds_as_often_as_the_closed_form(op: str, n: int) -> None:
    """Guards the marginals end to end: independent draws from them are graded by the task itself."""
    draws, instance = 4000, make_instance(op, n, Random(8))
    logits_LV = oracle().forward(ForwardRequest(row_of(instance, [IDS[MASK]] * GEN_LENGTH)))[0, PROMPT_LENGTH:]
    generator = torch.Generator().manual_seed(9)
    answers_LD = torch.multinomial(logits_LV.exp(), draws, replacement=True, generator=generator)
    texts = (TOKENIZER.decode(answer) for answer in answers_LD.T.tolist())
    rate = sum(instance.accepts(RENDERER.parse(text)) for text in texts) / draws
    wanted = ONE_STEP_SUCCESS[op](n)
    assert abs(rate - wanted) <= 3 * math.sqrt(wanted * (1 - wanted) / draws) + 5e-5
