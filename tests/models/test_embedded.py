"""Embedded and random models say of themselves what decoding needs, and the pool holds one of them."""

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch

from harness import files
from harness.config.catalogue import names, read
from harness.engine.shared.model import ForwardRequest, ModelKind
from harness.errors import DataError
from harness.models import checkpoint, embedded, pool, random
from harness.models.embedded import CHECKPOINTS
from harness.models.pool import LoadedModel
from harness.models.transformer import Attention
from tests.models.shapes import random_model, tokens

CASES = [
    (Attention.FULL, None, ModelKind.MASKED_DIFFUSION, 1, 0),
    (Attention.BLOCK_CAUSAL, 8, ModelKind.BLOCK_DIFFUSION, 1, 0),
    (Attention.CAUSAL, None, ModelKind.CAUSAL, None, 1),
]


@pytest.mark.parametrize(("attention", "block_length", "kind", "mask_id", "shift"), CASES)
def test_the_spec_follows_from_the_checkpoint(
    attention: Attention,
    block_length: int | None,
    kind: ModelKind,
    mask_id: int | None,
    shift: int,
    tmp_path: Path,
) -> None:
    """Guards shift and ids, which no decoder can check by itself."""
    transformer = random_model(vocab_size=128, attention=attention, block_length=block_length)
    digest = checkpoint.save(transformer, tmp_path)
    loaded = embedded.load(name="mine", path=str(tmp_path))
    spec = loaded.model.spec
    assert (spec.name, spec.kind, spec.mask_id, spec.shift) == ("mine", kind, mask_id, shift)
    assert (spec.block_length, spec.stop_ids, spec.pad_id) == (block_length, (3,), 0)
    assert (spec.vocab_size, spec.max_length, spec.layers) == (128, 40, 3)
    assert loaded.checkpoint_sha256 == digest
    assert loaded.parameters == sum(p.numel() for p in transformer.parameters())
    assert torch.equal(loaded.model.forward(ForwardRequest(tokens(2, 9))), transformer(tokens(2, 9)))


def test_logits_can_be_written_to(tmp_path: Path) -> None:
    """Guards the loop, which forbids the mask token in place; and no graph is kept."""
    checkpoint.save(random_model(vocab_size=128).requires_grad_(True), tmp_path)
    logits = embedded.load(name="mine", path=str(tmp_path)).model.forward(ForwardRequest(tokens(1, 4)))
    logits[..., 1] = -torch.inf
    assert not logits.requires_grad


def test_a_checkpoint_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    """Guards against ids that mean other symbols."""
    checkpoint.save(random_model(vocab_size=48), tmp_path)
    with pytest.raises(DataError, match=r"config\.json: vocab_size is 48"):
        embedded.load(name="mine", path=str(tmp_path))


def test_a_missing_checkpoint_names_the_command_that_makes_it() -> None:
    """Guards the first error a newcomer may meet."""
    with pytest.raises(DataError, match="decbench train no_such_model"):
        embedded.load(name="no_such_model")


def test_a_row_beyond_the_context_is_refused() -> None:
    """Guards against an index error inside the rotary tables."""
    model = random.load(name="r", kind="causal", max_length=12).model
    with pytest.raises(DataError, match=r"13 tokens .* 12 positions of model r"):
        model.forward(ForwardRequest(tokens(1, 13)))


@pytest.mark.parametrize(("attention", "block_length", "kind", "mask_id", "shift"), CASES)
def test_random_models_depend_on_the_seed_only(
    attention: Attention, block_length: int | None, kind: ModelKind, mask_id: int | None, shift: int
) -> None:
    """Guards tests that compare decoders on random models, whatever was drawn globally before."""

    def logits(seed: int) -> torch.Tensor:
        torch.rand(1)
        loaded = random.load(name="r", kind=kind.value, block_length=block_length, seed=seed, dtype=torch.float64)
        assert loaded.model.spec.kind is kind
        assert loaded.checkpoint_sha256 is None
        return loaded.model.forward(ForwardRequest(tokens(4, 32)))

    assert torch.equal(logits(0), logits(0))
    assert not torch.equal(logits(0), logits(1))
    assert logits(0).dtype is torch.float64


@pytest.mark.parametrize("deviation", [0.0, 0.5, 4.0])
def test_random_logits_spread_as_asked(deviation: float) -> None:
    """Guards decoder tests against a model that is always or never sure."""
    model = random.load(name="r", kind="masked_diffusion", logit_deviation=deviation).model
    spread = model.forward(ForwardRequest(tokens(8, 32))).std(-1).mean().item()
    assert spread == pytest.approx(deviation, rel=0.25)


def test_a_random_model_reads_its_context() -> None:
    """Guards decoder tests against a model for which every mask looks alike whatever stands around it."""
    model = random.load(name="r", kind="masked_diffusion").model
    rows_BT = torch.cat([tokens(64, 16, vocab_size=128), torch.ones(64, 16, dtype=torch.int64)], 1)
    best_BG = model.forward(ForwardRequest(rows_BT))[:, 16:].argmax(-1)
    assert len(best_BG[:, 0].unique()) > 5
    assert (best_BG != best_BG[:, :1]).float().mean() > 0.1


@pytest.fixture
def empty_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_HELD", {})


def make() -> LoadedModel:
    return random.load(name="r", kind="causal")


@pytest.mark.usefixtures("empty_pool")
def test_the_pool_loads_a_model_once() -> None:
    """Guards the time of a sweep."""
    first = pool.load_model("a", make)
    assert pool.load_model("a", lambda: pytest.fail("loaded twice")) is first


@pytest.mark.usefixtures("empty_pool")
def test_the_pool_frees_one_model_before_it_loads_another() -> None:
    """Guards memory: two models of 8 B parameters do not fit where one does."""
    held = weakref.ref(pool.load_model("a", make).model)

    def load_other() -> LoadedModel:
        gc.collect()
        assert held() is None
        loaded.append(make())
        return loaded[0]

    loaded: list[LoadedModel] = []
    assert pool.load_model("b", load_other) is loaded[0]


@pytest.mark.usefixtures("empty_pool")
def test_the_pool_holds_the_models_of_one_run() -> None:
    """Guards a draft against taking its target's place, and memory against one that is asked no longer."""
    target = pool.load_model("a", make, beside=("a", "b"))
    draft = weakref.ref(pool.load_model("b", make, beside=("a", "b")).model)
    assert pool.load_model("a", lambda: pytest.fail("loaded twice"), beside=("a", "b")) is target
    assert pool.load_model("a", lambda: pytest.fail("loaded twice")) is target
    gc.collect()
    assert draft() is None


@pytest.mark.usefixtures("empty_pool")
def test_a_failed_load_leaves_no_model_behind() -> None:
    """Guards a sweep in which one model is damaged."""

    def damaged() -> LoadedModel:
        raise DataError("damaged")

    for _ in range(2):
        with pytest.raises(DataError, match="damaged"):
            pool.load_model("a", damaged)
    assert pool.load_model("a", make).parameters > 0


@pytest.mark.parametrize("name", names("training"))
def test_a_checkpoint_is_the_one_that_its_sidecar_describes(name: str) -> None:
    """Guards weights, recipe and evaluation against going apart, and the bar that every shipped model must clear."""
    sidecar = json.loads((CHECKPOINTS / name / "training.json").read_text())
    assert sidecar["sha256"] == files.sha256(CHECKPOINTS / name / checkpoint.WEIGHTS)
    recipe = [{k: v for k, v in stage.items() if k != "loss_curve"} for stage in sidecar["stages"]]
    assert recipe == read("training", name)["stages"]
    assert {f"list_{operation}" for operation in sidecar["evaluation"]["exact_match"]} <= set(names("task"))
    # A smaller one is a draft, whose tokens are worth what a target makes of them (tests/methods); a pair and a mixture
    # have the updates of some minutes, and what they do not know is told in their sidecars.
    known = not {"shape", "data"} & read("training", name).keys()
    bar, samples = (0.98, 500) if known else (0, 2)
    assert sidecar["evaluation"]["samples_per_length"] >= samples
    for operation, by_length in sidecar["evaluation"]["exact_match"].items():
        assert min(by_length.values()) >= bar, operation
