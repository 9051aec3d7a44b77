"""Checkpoints come back bit for bit, and a damaged one is one clear line."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.errors import DataError
from harness.models import checkpoint
from tests.models.shapes import config, random_model, tokens

CPU = torch.device("cpu")


def load(folder: Path, dtype: torch.dtype = torch.float32):
    return checkpoint.load(folder, dtype=dtype, device=CPU)


@pytest.mark.parametrize("switches", [{}, {"tied_head": True}, {"qkv_bias": True, "qk_norm": True}])
def test_a_round_trip_keeps_every_bit(switches: dict, tmp_path: Path) -> None:
    """Guards names, tied heads (shared memory, which safetensors refuses) and the digest."""
    model = random_model(**switches)
    digest = checkpoint.save(model, tmp_path)
    loaded = load(tmp_path)
    assert loaded.config == model.config
    assert not loaded.training
    assert torch.equal(loaded(tokens(1, 20)), model(tokens(1, 20)))
    assert digest == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_the_dtype_is_that_asked_for(tmp_path: Path) -> None:
    """Guards float64, in which reference trajectories are replayed."""
    checkpoint.save(random_model(), tmp_path)
    assert load(tmp_path, torch.float64)(tokens(1, 5)).dtype is torch.float64


def test_loading_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    """Guards reproducibility of whatever is drawn after a model was loaded."""
    checkpoint.save(random_model(), tmp_path)
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("field", ["rope_theta", "norm_eps"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), "many"])
def test_a_number_that_makes_every_logit_nan_is_refused(field: str, value: object, tmp_path: Path) -> None:
    """Guards positions and norms: a division by zero shows in no shape."""
    checkpoint.save(random_model(), tmp_path)
    path = tmp_path / checkpoint.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(DataError, match=f"{field} must be a finite number above 0"):
        load(tmp_path)


def _truncate(folder: Path) -> None:
    path = folder / checkpoint.WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def _empty(folder: Path) -> None:
    (folder / checkpoint.WEIGHTS).write_bytes(b"")


def _garbage(folder: Path) -> None:
    (folder / checkpoint.WEIGHTS).write_bytes(b"\xff\x00not a model\n" * 50)


def _edit(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / checkpoint.WEIGHTS)
        change(tensors)
        save_file(tensors, folder / checkpoint.WEIGHTS)

    return damage


def _configure(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / checkpoint.CONFIG).write_text(json.dumps(config().to_dict() | changes))

    return damage


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_truncate, "not a readable safetensors file"),
    "empty": (_empty, "not a readable safetensors file"),
    "garbage": (_garbage, "not a readable safetensors file"),
    "no weights": (lambda f: (f / checkpoint.WEIGHTS).unlink(), "no such file"),
    "missing tensor": (_edit(lambda t: t.pop("norm.weight")), "norm.weight of shape (32,) is missing"),
    "extra tensor": (_edit(lambda t: t.update(extra=torch.ones(1))), "extra is not part"),
    "NaN": (_edit(lambda t: t["head.weight"].fill_(torch.nan)), "head.weight holds values that are not finite"),
    "another shape": (_configure(feed_forward_width=64), "asks for (32, 64)"),
    "unknown key": (_configure(mystery=1), "mystery"),
    "wrong type": (_configure(width="wide"), "width"),
    "unknown attention": (_configure(attention="sideways"), "sideways"),
    "no config": (lambda f: (f / checkpoint.CONFIG).unlink(), "decbench train"),
    "broken config": (lambda f: (f / checkpoint.CONFIG).write_bytes(b"{\xff"), "not a transformer config"),
    "config is a list": (lambda f: (f / checkpoint.CONFIG).write_text("[]"), "not a transformer config"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_clear_line(name: str, tmp_path: Path) -> None:
    """Guards users against a traceback, and against a model that loads but is not the one that was trained."""
    checkpoint.save(random_model(), tmp_path)
    damage, complaint = DAMAGE[name]
    damage(tmp_path)
    with pytest.raises(DataError) as raised:
        load(tmp_path)
    message = str(raised.value)
    assert complaint in message
    assert str(tmp_path) in message
    assert "\n" not in message
