"""Rows that begin while others go on: the same answers and counts as alone, with everything a model keeps of them."""

from pathlib import Path

import pytest
import torch

from harness.engine.autoregressive.entrance import Begins
from harness.engine.autoregressive.method import AutoregressiveMethod, EmptyDrafter
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.records import Counts, Ledger, Role
from harness.models.graphs import StaticModel
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.prompt_lookup import PromptLookup
from tests.engine.causal import PROMPTS, random_causal, run, with_drafts
from tests.models import test_hf_causal, test_hf_encoder_decoder

METHODS = {
    "plain": AutoregressiveMethod(acceptor=Greedy(), drafter=EmptyDrafter()),
    "drafts": with_drafts(Greedy(), PromptLookup(), 3),
}


def in_turn(at_once: int) -> Begins:
    """Return the rule that lets samples begin as others end, so many at once."""
    return lambda going_on, width: at_once - going_on


def together(model: LanguageModel, method: AutoregressiveMethod, at_once: int) -> tuple[list[Generation], list[Counts]]:
    ledger = Ledger()
    made = run(model, method, PROMPTS, ledger=ledger, begins=in_turn(at_once))
    assert max(len(record.sample_B) for record in ledger.records) == at_once
    return made, ledger.counts(range(len(PROMPTS)))


def alone(model: LanguageModel, method: AutoregressiveMethod) -> tuple[list[Generation], list[Counts]]:
    made, counts = [], []
    for at, prompt in enumerate(PROMPTS):
        ledger = Ledger()
        (one,) = run(model, method, [prompt], ledger=ledger, seeds=[100 + at])
        made.append((one.tokens, one.decided_at, one.tokens_generated))
        counts += ledger.counts([0])
    return made, counts


def model_of(kind: str, folder: Path) -> LanguageModel:
    stop_ids = (7,)
    if kind == "transformers":
        test_hf_causal.write(folder)
        return test_hf_causal.loaded(folder, torch.float64)
    if kind == "encoder_decoder":
        test_hf_encoder_decoder.write(folder)
        return test_hf_encoder_decoder.loaded(folder).model
    model = random_causal(stop_ids=stop_ids)
    return StaticModel(model) if kind == "static" else model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["in_tree", "static", "transformers", "encoder_decoder"])
def test_a_row_that_begins_beside_others_is_decoded_as_if_alone(kind: str, method: str, tmp_path: Path) -> None:
    """Guards what each kind of model keeps of rows, which is joined, and grows where a longer prompt begins."""
    model = model_of(kind, tmp_path)
    made, counts = together(model, METHODS[method], 3)
    assert ([(one.tokens, one.decided_at, one.tokens_generated) for one in made], counts) == alone(
        model, METHODS[method]
    )


def test_prompts_are_computed_without_the_rows_that_go_on() -> None:
    """Guards positions: beside a prompt no row is filled up, and no call waits for room."""
    model, ledger, seen = random_causal(stop_ids=(7,)), Ledger(), list[tuple[int, int]]()

    def begins(going_on: int, width: int) -> int:
        seen.append((going_on, width))
        return 2 - going_on

    finished: list[list[int]] = []
    made = run(
        model, METHODS["plain"], PROMPTS, ledger=ledger, begins=begins,
        on_finished=lambda some: finished.append([one.sample for one in some]),
    )  # fmt: skip
    prefills = [record for record in ledger.records if record.role is Role.PREFILL]
    assert [sample for record in prefills for sample in record.sample_B.tolist()] == list(range(len(PROMPTS)))
    assert len(prefills[0].sample_B) == 2 and all(record.idle_B is None for record in prefills)
    assert sorted(sample for some in finished for sample in some) == [one.sample for one in made]
    assert len(finished) > 3 and seen[0] == (0, 0) and all(going_on <= 2 for going_on, _ in seen)
    assert [one.calls >= len(one.tokens) for one in made] == [True] * len(PROMPTS)


def test_rows_join_with_what_policies_keep_of_either() -> None:
    """Guards stores that only some rows have, whichever these are, and the widths of both."""
    model = random_causal()
    old, fresh = (
        Sequences.from_prompts(model, prompts, gen_length=3, seeds=range(len(prompts)), first=first, nodes=2)
        for prompts, first in (([[1, 2], [3]], 0), ([[4, 5, 6, 7]], 2))
    )
    old.memory["mine.seen_BL"], old.stores["mine"] = torch.ones(2, 5), model.new_store(2, 5)
    fresh.stores["theirs"] = model.new_store(1, 7)
    fresh.stores["theirs"].keys[0][:] = 3.0  # type: ignore[attr-defined]
    both = old.joined(fresh)
    assert both.sample_B.tolist() == [0, 1, 2] and both.tokens_BL.shape == (3, 7) and both.store.slots == 9
    assert both.memory["mine.seen_BL"].sum(1).tolist() == [5, 5, 0]
    assert both.memory.get("mine.seen_BL", -1.0)[2].tolist() == [-1] * 7  # type: ignore[index]
    assert {name: store.slots for name, store in both.stores.items()} == {"mine": 7, "theirs": 7}
    assert both.stores["theirs"].keys[0][:, 0, 0, 0].tolist() == [0, 0, 3]  # type: ignore[attr-defined]
