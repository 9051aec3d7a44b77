"""The objectives equal slow ones written position by position; training is a function of its seeds."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.models import training
from harness.models.feed_forward import Experts, Router
from harness.models.tokenizer import IDS, VOCABULARY
from harness.models.training import Recipe, Text, train
from harness.models.transformer import Attention, Transformer
from tasks.lists.instance import ListInstance
from tasks.lists.splits import split_of
from tasks.lists.training import OPERATIONS, Focus, Layout, batches
from tasks.serial import FsmWord
from tasks.serial.groups import GROUPS
from tasks.serial.training import Words, mixed
from tests.models.shapes import config, random_model

P, G, BLOCK = 8, 8, 4
TEXT = Text(prompt_length=P, mask_id=1, eos_id=3)
KINDS = {
    "full": {"attention": Attention.FULL},
    "block": {"attention": Attention.BLOCK_CAUSAL, "block_length": BLOCK},
    "causal": {"attention": Attention.CAUSAL},
}
LAYOUT = Layout(ids=IDS, max_items=10, answer_length=16)


def example_rows() -> Tensor:
    """Return rows whose answers end at different places, one of them never."""
    rows_BT = torch.randint(4, 48, (5, P + G), generator=torch.Generator().manual_seed(0))
    for row, end in enumerate((0, 3, 7, 8, 5)):
        rows_BT[row, P + end :] = TEXT.eos_id
    return rows_BT


def loss_and_noisy(model: Transformer, rows_BT: Tensor) -> tuple[float, Tensor]:
    """Return the loss and the noisy answers [B, G] that the model was shown."""
    shown: list[Tensor] = []
    model.embedding.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0]))
    objective = training.OBJECTIVES[model.config.attention]
    loss = objective(model, rows_BT, TEXT, torch.Generator().manual_seed(7))
    return loss.item(), shown[0][:, -G:]


def nats(logits_TV: Tensor, place: int, token: Tensor) -> float:
    return -logits_TV[place].log_softmax(-1)[token].item()


def slow_full(model: Transformer, rows_BT: Tensor, noisy_BG: Tensor, t: Tensor) -> float:
    total = 0.0
    for row, noisy_G, t_row in zip(rows_BT, noisy_BG, t, strict=True):
        logits_TV = model(torch.cat([row[:P], noisy_G])[None])[0]
        for i in (noisy_G == TEXT.mask_id).nonzero().flatten().tolist():
            total += nats(logits_TV, P + i, row[P + i]) / t_row.item()
    return total / noisy_BG.numel()


def slow_block(model: Transformer, rows_BT: Tensor, noisy_BG: Tensor, t: Tensor) -> float:
    """Each block by itself, behind the clean tokens before it: what decoding sees."""
    total = 0.0
    for row, noisy_G, t_K in zip(rows_BT, noisy_BG, t, strict=True):
        for start, t_block in zip(range(0, G, BLOCK), t_K, strict=True):
            noisy_block = noisy_G[start : start + BLOCK]
            logits_TV = model(torch.cat([row[: P + start], noisy_block])[None])[0]
            for i in (noisy_block == TEXT.mask_id).nonzero().flatten().tolist():
                total += nats(logits_TV, P + start + i, row[P + start + i]) / t_block.item()
    return total / noisy_BG.numel()


@pytest.mark.parametrize(("kind", "slow", "width"), [("full", slow_full, G), ("block", slow_block, BLOCK)])
def test_masked_objectives_equal_their_definition(kind: str, slow: Callable[..., float], width: int) -> None:
    """Guards weight, normalisation, offsets, and a block that sees its own or later clean tokens."""
    model, rows_BT = random_model(dtype=torch.float64, **KINDS[kind]), example_rows()
    loss, noisy_BG = loss_and_noisy(model, rows_BT)
    kept = noisy_BG != TEXT.mask_id
    assert torch.equal(noisy_BG[kept], rows_BT[:, P:][kept])
    t = (~kept).double().view(len(rows_BT), -1, width).mean(-1)
    t = t[:, 0] if width == G else t
    assert loss == pytest.approx(slow(model, rows_BT, noisy_BG, t), rel=1e-6)


def test_the_causal_objective_reads_the_answer_up_to_its_first_end() -> None:
    """Guards the shift by one and the end symbol, which must be learnt once and not as filling."""
    model, rows_BT = random_model(dtype=torch.float64, **KINDS["causal"]), example_rows()
    terms = []
    for row in rows_BT:
        logits_TV = model(row[None])[0]
        for i in range(G):
            terms.append(nats(logits_TV, P + i - 1, row[P + i]))
            if row[P + i] == TEXT.eos_id:
                break
    assert loss_and_noisy(model, rows_BT)[0] == pytest.approx(np.mean(terms), rel=1e-10)


def test_masked_shares_cover_all_numbers_evenly() -> None:
    """Guards the stratification and the weight 1/t, which presupposes every number of masks equally often."""
    masked = training._masked((50, 4), 8, torch.Generator().manual_seed(0))
    counts = masked.sum(-1).flatten()
    assert counts.bincount().tolist() == [0] + [25] * 8
    assert counts.tolist() != sorted(counts.tolist())


def test_every_position_is_masked_equally_often() -> None:
    """Guards a draw that prefers places, which would train some of them less."""
    share = training._masked((8000,), 16, torch.Generator().manual_seed(0)).float().mean(0)
    torch.testing.assert_close(share, torch.full((16,), 8.5 / 16), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_a_function_of_its_seeds(kind: str) -> None:
    """Guards the documented command of a checkpoint: same seed same bits, another seed other weights."""

    def weights(seed: int) -> Tensor:
        shape = config(vocab_size=128, **KINDS[kind])
        data = batches(layout=LAYOUT, rows=8, seed=seed)
        text = Text(prompt_length=16, mask_id=1, eos_id=3)
        torch.rand(1)
        model = train(shape, Recipe(steps=3, rows=8, seed=seed), text, data, lambda step, loss: None)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    first = weights(0)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


def test_training_learns() -> None:
    """Guards the loop: thirty steps on one batch must bring the loss down by a lot."""
    rows = next(batches(layout=LAYOUT, rows=16, seed=0))
    losses: list[float] = []
    text = Text(prompt_length=16, mask_id=1, eos_id=3)
    recipe = Recipe(steps=60, rows=16, learning_rate=2e-2, warmup_steps=5)
    shape = config(vocab_size=128, attention=Attention.CAUSAL)
    train(shape, recipe, text, itertools.repeat(rows), lambda step, loss: losses.append(loss))
    assert losses[-1] < 0.5 * losses[0]


def read(row: np.ndarray) -> tuple[ListInstance, list[str]]:
    """Return the problem and the answer that a training row states."""
    symbols = [VOCABULARY[i] for i in row]
    assert (symbols[0], symbols[4], symbols[15]) == ("<bos>", "<arg>", "<sep>")
    op, argument, word = symbols[1:4]
    field = "count" if op.startswith("repeat") else "index"
    instance = ListInstance(
        op=op,
        items=tuple(s for s in symbols[5:15] if s != "<pad>"),
        word=None if word == "<none>" else word,
        id="row",
        split="train",
        seed=0,
        **({} if argument == "<none>" else {field: int(argument[1:])}),
    )
    answer = symbols[16:]
    end = answer.index("<eos>")
    assert set(answer[end:]) == {"<eos>"}
    return instance, answer[:end]


def test_training_rows_are_valid_and_cover_everything() -> None:
    """Guards what the models learn from: right answers, every operation at every length, no test list."""
    rows = np.concatenate(list(itertools.islice(batches(layout=LAYOUT, rows=400, seed=3), 10)))
    seen: set[tuple[str, int]] = set()
    for row in rows:
        instance, answer = read(row)
        assert instance.accepts(answer), (instance, answer)
        assert split_of(instance.items) == "train"
        seen.add((instance.op, len(instance.items)))
    longest = {op: 5 if op.startswith("repeat") else 10 for op in OPERATIONS}
    assert seen == {(op, n) for op in OPERATIONS for n in range(3, longest[op] + 1)}


MIXED = Experts(count=4, active=1, width=16, router=Router.SOFTMAX, normalised=True)


@pytest.mark.parametrize(("slope", "uneven"), [(0.0, 1.0), (100.0, 4.0)])
def test_unevenness_is_told_from_none_to_all(slope: float, uneven: float) -> None:
    """Guards the scale: 1 where experts are used alike by probability, their number where one is always chosen."""
    model = random_model(experts=MIXED, attention=Attention.CAUSAL)
    with torch.no_grad():
        for block in model.blocks:
            block.router = block.feed_forward.router  # type: ignore[union-attr]
            block.router.weight.zero_()
            block.router.weight[0] = slope  # type: ignore[index]
    with training.balanced(model) as unevenness:
        # The norm in front has weights around 1, so that states of one sign give one expert.
        for block in model.blocks:
            block.feed_forward(torch.ones(2, 3, 32))  # type: ignore[operator]
        assert unevenness().item() == pytest.approx(uneven)
        block.feed_forward(torch.ones(2, 3, 32))  # type: ignore[operator]
        assert unevenness().item() == pytest.approx(uneven)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_balance_moves_routers() -> None:
    """Guards the weight of the loss: experts that are used alike need other routers than the tokens alone ask for."""

    def trained(balance: float) -> Transformer:
        shape = config(vocab_size=len(IDS), max_length=64, experts=MIXED, attention=Attention.CAUSAL)
        text = Text(prompt_length=LAYOUT.prompt_length, mask_id=IDS["<mask>"], eos_id=IDS["<eos>"])
        recipe = Recipe(steps=2, rows=4, warmup_steps=1, balance=balance)
        return train(shape, recipe, text, batches(layout=LAYOUT, rows=4, seed=1), lambda step, loss: None)

    routers = [
        [w for name, w in trained(balance).named_parameters() if name.endswith("router.weight")]
        for balance in (0.0, 0.0, 1.0)
    ]
    assert all(torch.equal(one, other) for one, other in zip(routers[0], routers[1], strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(routers[0], routers[2], strict=True))


def test_training_rows_are_a_function_of_the_seed() -> None:
    """Guards the data version of a checkpoint."""
    one, same, other = (next(batches(layout=LAYOUT, rows=20, seed=s)) for s in (5, 5, 6))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_focus_adds_short_lists_of_one_operation() -> None:
    """Guards that the share is met, the lengths are kept, and every other operation stays in the mixture."""
    focus = Focus(operation="shuffle", max_items=4, share=0.5)
    rows = [read(row)[0] for row in next(batches(layout=LAYOUT, rows=200, seed=3, focus=focus))]
    assert all(instance.op == "shuffle" and len(instance.items) <= 4 for instance in rows[:100])
    assert {instance.op for instance in rows[100:]} == set(OPERATIONS)


@pytest.mark.parametrize(("operation", "share"), [("shufle", 0.5), ("shuffle", 1.5)])
def test_a_focus_that_means_nothing_is_refused(operation: str, share: float) -> None:
    """Guards the recipe files against a name or a share that trains something else."""
    with pytest.raises(ValueError, match=f"={operation if share < 1 else share}: must"):
        Focus(operation=operation, max_items=4, share=share)


def test_words_are_written_as_the_task_asks_them_and_answers_are_right() -> None:
    """Guards prompts that a trained model would not know again, wrong states, and words of the test split."""
    words = Words(group="a5", length=15, share=0.5)
    layout = Layout(ids=IDS, max_items=15, answer_length=16, longest_list=10)
    (rows,) = itertools.islice(mixed(batches(layout=layout, rows=40, seed=3), words, IDS, 3), 1)
    task = FsmWord(name="fsm_word", group="a5", length=15, renderer="tiny", template="fixed", samples=1)
    (sample,) = task.instances()
    assert len(sample.prompt.split()) == layout.prompt_length
    for row in rows[:20]:
        symbols = [VOCABULARY[i] for i in row]
        letters = symbols[5:20]
        assert split_of(letters) == "train"
        posed = replace(sample.instance, letters="".join(letters), states=tuple(GROUPS["a5"].run("".join(letters))))
        assert task.score(replace(sample, instance=posed), " ".join(symbols[21:])).strict
        assert symbols[:5] + symbols[20:21] == sample.prompt.split()[:5] + sample.prompt.split()[20:]
    assert all(VOCABULARY[row[1]] in OPERATIONS for row in rows[20:])


def test_a_longest_list_leaves_the_layout_as_it_is() -> None:
    """Guards the width that is padded to against the lists that are drawn."""
    layout = Layout(ids=IDS, max_items=15, answer_length=16, longest_list=10)
    (rows,) = itertools.islice(batches(layout=layout, rows=300, seed=3), 1)
    counts = [sum(VOCABULARY[i] != "<pad>" for i in row[5:20]) for row in rows]
    assert (min(counts), max(counts), layout.prompt_length) == (3, 10, 21)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"group": "s5"}, "group=s5: must be one of a5, s3, c60, parity"),
        ({"length": 17}, r"length=17: must lie in \[8, 16"),
    ],
)
def test_words_that_cannot_be_are_refused(wrong: dict, told: str) -> None:
    """Guards the recipe files against groups whose states are no symbol, and words that fit no prompt."""
    with pytest.raises(ValueError, match=told):
        Words(**{"group": "a5", "length": 15, "share": 0.5} | wrong)
