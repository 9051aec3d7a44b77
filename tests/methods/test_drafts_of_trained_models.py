"""Drafts where tokens mean something: list tasks and random prompts, the trained models, float32."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle

import pytest
import torch
from torch import Tensor

from harness.config.catalogue import names
from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.method import AutoregressiveMethod, EmptyDrafter
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.trees import Node
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.records import Ledger
from harness.runs.decode_batch import Decoded
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.layer_skip import EarlyExit
from methods.autoregressive.swift import Swift
from tests.engine.causal import run, with_drafts
from tests.engine.trees import packed
from tests.methods.lossless import CLAIMED, METHODS, loaded, parted
from tests.methods.self_drafts import stores_are_fresh
from tests.methods.trained import decode_task, prompts_of

TASKS = [name for name in names("task") if name.startswith("list_")]
SAMPLES = 8
TARGETS = ("tiny_ar", "tiny_ar_exits")
LENGTH = 12
MANY = 500
APART = [(name, rows) for name in METHODS for rows in (1, 3, 8) if name in CLAIMED or rows == 8]


def words_and_target(name: str) -> tuple[tuple[str, ...], str]:
    """Return the overrides of a method, and its target."""
    return METHODS[name], METHODS[name][0].removeprefix("model=")


@cache
def plain(task: str, target: str = "tiny_ar") -> Decoded:
    return decode_task(task, f"model={target}", "method=ar_greedy", samples=SAMPLES)


def held_to_greedy(name: str, task: str) -> Decoded:
    """Assert that a method gives greedy decoding's answers to a task, in no more calls; return what it gives."""
    words, target = words_and_target(name)
    base, made = plain(task, target), decode_task(task, *words, samples=SAMPLES)
    model, _ = loaded((f"model={target}", "method=ar_greedy"))
    prompts = prompts_of(task, f"model={target}", samples=SAMPLES)
    assert parted(model, prompts, base.generations, made.generations) == [], task
    same = [one.tokens == other.tokens for one, other in zip(base.generations, made.generations, strict=True)]
    assert all(b.nfe >= m.nfe for b, m, s in zip(base.counts, made.counts, same, strict=True) if s)
    return made


@pytest.mark.parametrize(("name", "task"), [*zip(METHODS, cycle(TASKS), strict=False)])
def test_no_answer_of_a_trained_model_changes(name: str, task: str) -> None:
    """Guards losslessness of every method that claims it, on some list task."""
    held_to_greedy(name, task)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_no_answer_to_any_list_changes(name: str) -> None:
    """Guards losslessness on every list task."""
    for task in TASKS:
        held_to_greedy(name, task)


@dataclass(frozen=True)
class Noisy:
    """Draft known answers, of which the share `right` stays and other tokens are random: a chain, or a `tree`."""

    answers: Sequence[Sequence[int]]
    vocabulary: int
    tree: bool
    right: float = 0.7
    nodes: int = 9

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return drafts that are the row's own, whatever stands beside it."""
        trees = [self._drafted(sequences, row, int(limit_B[row])) for row in range(sequences.num_rows)]
        made = packed(trees)
        return made if self.tree else replace(made, parent_BK=None)

    def _drafted(self, sequences: Sequences, row: int, limit: int) -> list[Node]:
        length, sample = int(sequences.length_B[row]), int(sequences.sample_B[row])
        chance = torch.Generator().manual_seed(97 * sample + length)
        ahead = self.answers[sample][length - int(sequences.prompt_length_B[row]) :]
        drafts: list[Node] = []
        for depth in range(int(torch.randint(limit + 1, (), generator=chance))):
            siblings = int(torch.randint(3, (), generator=chance)) if self.tree else 0
            tokens = torch.randint(self.vocabulary, (siblings + 1,), generator=chance).tolist()
            if depth < len(ahead) and float(torch.rand((), generator=chance)) < self.right:
                tokens[-1] = ahead[depth]
            if len(drafts) + len(tokens) > self.nodes:
                break
            at = len(drafts) - 1
            drafts += [(at, token) for token in dict.fromkeys(tokens)]
        return drafts


def random_prompts(count: int, vocabulary: int) -> list[list[int]]:
    """Return prompts that are no task, of 1 to 23 tokens."""
    chance = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 24, (count,), generator=chance).tolist()
    return [torch.randint(vocabulary, (length,), generator=chance).tolist() for length in lengths]


@cache
def plain_rows(target: str, count: int) -> list[Generation]:
    """Return greedy decoding's answers to random prompts, eight at a time."""
    model, method = loaded((f"model={target}", "method=ar_greedy"))
    return decoded(model, lambda _: method, random_prompts(count, model.spec.vocab_size), 8)


def decoded(
    model: LanguageModel,
    method: Callable[[int], AutoregressiveMethod],
    prompts: Sequence[Sequence[int]],
    rows: int,
) -> list[Generation]:
    """Decode prompts, so many rows at a time, those from number n on with `method(n)`."""
    made: list[Generation] = []
    for start in range(0, len(prompts), rows):
        made += run(model, method(start), prompts[start : start + rows], LENGTH)
    return made


def _random(kind: str, target: str, count: int, vocabulary: int) -> Callable[[int], AutoregressiveMethod]:
    """Return methods whose drafts are chance: tokens, halves of layers that are left out, or how many layers draft."""
    answers = [one.tokens for one in plain_rows(target, count)]

    def of(start: int) -> AutoregressiveMethod:
        chance = torch.Generator().manual_seed(start)
        if kind in ("chain", "tree"):
            return with_drafts(Greedy(), Noisy(answers[start:], vocabulary, tree=kind == "tree"), 5)
        if kind == "exit":
            return with_drafts(Greedy(), EarlyExit(exit=int(torch.randint(1, 5, (), generator=chance))), 3)
        halves = torch.rand(2, 2, generator=chance) < 0.6
        attention, feed_forward = (tuple((1 + one.nonzero()[:, 0]).tolist()) for one in halves)
        set_of = {"attention": attention, "feed_forward": feed_forward, "r": 0.0}
        return with_drafts(Greedy(), Swift(threshold=0.0, max_opt_iter=0, **set_of), 4)

    return of


RANDOM = [(kind, target) for kind in ("chain", "tree", "exit", "layers") for target in TARGETS]


def _unchanged_on_random_prompts(name: str, count: int, rows: int) -> None:
    words, target = words_and_target(name)
    model, method = loaded(words)
    prompts = random_prompts(count, model.spec.vocab_size)
    made = decoded(model, lambda _: method, prompts, rows)
    assert parted(model, prompts, plain_rows(target, count), made) == []


def _unchanged_by_chance(kind: str, target: str, count: int, rows: int) -> list[Generation]:
    model, _ = loaded((f"model={target}", "method=ar_greedy"))
    prompts, vocabulary = random_prompts(count, model.spec.vocab_size), model.spec.vocab_size
    made = decoded(model, _random(kind, target, count, vocabulary), prompts, rows)
    assert parted(model, prompts, plain_rows(target, count), made) == []
    return made


def _rounds(made: Sequence[Generation]) -> int:
    return sum(max(one.decided_at) for one in made)


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("name", METHODS)
def test_no_answer_to_a_random_prompt_changes(name: str, rows: int) -> None:
    """Guards prompts that are no task, of any length, where the draft is mostly wrong, and rows that end apart."""
    _unchanged_on_random_prompts(name, rows, rows)


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize(("kind", "target"), RANDOM)
def test_no_random_draft_changes_an_answer(kind: str, target: str, rows: int) -> None:
    """Guards verification against drafts that nobody made for the model, tokens and layers; some of them stand."""
    made = _unchanged_by_chance(kind, target, rows, rows)
    assert rows < 8 or _rounds(made) < _rounds(plain_rows(target, rows))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rows"), APART)
def test_no_answer_to_many_random_prompts_changes(name: str, rows: int) -> None:
    """Guards what eight prompts do not meet."""
    _unchanged_on_random_prompts(name, MANY, rows)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize(("kind", "target"), RANDOM)
def test_no_random_draft_changes_many_answers(kind: str, target: str, rows: int) -> None:
    """Guards what eight prompts do not meet."""
    _unchanged_by_chance(kind, target, MANY, rows)


@pytest.mark.parametrize("name", METHODS)
def test_keys_and_values_behind_a_round_are_those_of_a_fresh_forward(name: str) -> None:
    """Guards the target's store in every method, with drafts, trees and parts of layers that it did not keep."""
    words, target = words_and_target(name)
    model, method = loaded(words, "float64")
    prompts = prompts_of("list_repeat_list", f"model={target}", samples=6)
    stood = stores_are_fresh(model, method, prompts, 16)
    # What nobody has trained hits a token now and then.
    least = 1 if "model@draft=random_dflash" in words else 4
    assert stood >= least or isinstance(method.drafter, EmptyDrafter)


@pytest.mark.parametrize("method", ["lookahead", "aded"])
def test_trees_on_the_oracle_change_nothing(method: str) -> None:
    """Guards a store that holds tokens in place of keys, whose slots a path moves through."""
    base, made = (
        decode_task("list_repeat_list", "model=oracle_ar", f"method={name}", samples=SAMPLES)
        for name in ("ar_greedy", method)
    )
    assert [one.tokens for one in base.generations] == [one.tokens for one in made.generations]
    assert sum(one.nfe for one in made.counts) < sum(one.nfe for one in base.counts)


def test_the_embedded_draft_is_worth_its_calls() -> None:
    """Guards the shipped draft: of its tokens three fifths stand, and the target is called half as often."""
    drafted = stood = calls = plain_calls = 0
    for task in TASKS:
        made = decode_task(task, *METHODS["speculative"], samples=SAMPLES)
        rounds = sum(one.nfe - one.nfe_prefill for one in made.counts)
        drafted += sum(one.nfe_draft for one in made.counts)
        stood += sum(len(one.tokens) - 1 for one in made.generations) - rounds
        calls += sum(one.nfe for one in made.counts)
        plain_calls += sum(one.nfe for one in plain(task).counts)
    assert stood / drafted > 0.6
    assert plain_calls / calls > 2


def test_a_draft_that_is_the_target_stands_on_every_task() -> None:
    """Guards positions and stores of two models on ragged prompts: hardly a token of one's own draft may fall."""
    for task in TASKS:
        made = decode_task(task, *METHODS["speculative of itself"], "method.K=3", samples=SAMPLES)
        for one, counts in zip(made.generations, made.counts, strict=True):
            assert counts.nfe == 1 + -(-(len(one.tokens) - 1) // 4), task
