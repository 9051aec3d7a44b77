"""What each decoder may cost beside the model's calls: counted, never timed, and no more than it has come down to.

Bars lie in golden/hot_path.json; `--update-golden` writes what is counted now.
"""

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch

from harness.config.build import build_method
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.engine.canvas import Canvas
from harness.engine.diffusion import decode
from harness.engine.method import DiffusionMethod
from harness.engine.records import Ledger
from tests.caches.decoding import random_model
from tests.engine.operations import counted

FILE = Path(__file__).parent / "golden" / "hot_path.json"
METHODS = [name for name in names("method") if read("method", name)["family"] == "diffusion"]
CACHES = ("prefix", "dual", "dkv_decode", "d2cache", "dllm_cache")
DRAFTED = [
    f"freedave method/cache={cache} method.drafts={drafts}"
    for cache in ("prefix", "dual")
    for drafts in ("batch", "tree")
]
CASES = [*METHODS, *(f"threshold method/cache={name}" for name in CACHES), *DRAFTED]
LENGTH = 16
PROMPTS = [[2, 30, 76, 4], [2, 31, 77, 4], [2, 32, 78, 4]]


@cache
def method_of(words: str) -> tuple[str, DiffusionMethod]:
    """Build a decoder with blocks of half the response, on the first kind of model that it runs on."""
    option = read("method", words.split()[0])
    (kind, *_), blocks = option["models"], ["method.block_length=8"] if "block_length" in option else []
    model = "tiny_block" if kind == "block_diffusion" else "random_mdm"
    made = build_method(compose([f"model={model}", *f"method={words}".split(), *blocks, f"gen_length={LENGTH}"]))
    assert isinstance(made, DiffusionMethod)
    return kind, made


def counts_of(words: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return what a decoder does per call of the model, rounded up to a tenth."""
    kind, method = method_of(words)
    model = random_model(kind)
    spec = model.spec
    canvas = Canvas.from_prompts(
        PROMPTS, gen_length=LENGTH, mask_id=spec.mask_id, pad_id=spec.pad_id, stop_ids=spec.stop_ids,
        seeds=range(len(PROMPTS)),
    )  # fmt: skip
    with torch.inference_mode(), counted(model, monkeypatch) as (aside, operations):
        decode(aside, method, canvas, Ledger())
    kinds = {"operations": operations.made, "reads": operations.reads, "copies": operations.whole}
    return {name: math.ceil(10 * found.total() / aside.calls) / 10 for name, found in kinds.items()}


@pytest.mark.parametrize("words", CASES)
def test_a_decoder_does_no_more_beside_its_calls_than_it_did(
    words: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    """Guards the loop against operations, waits of the host and copies of all logits that come back unseen."""
    found = counts_of(words, monkeypatch)
    bars = json.loads(FILE.read_text()) if FILE.exists() else {}
    if request.config.getoption("--update-golden"):
        bars[words] = found
        lines = [f"{json.dumps(name)}: {json.dumps(bars[name])}" for name in sorted(bars)]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert all(found[name] <= bar for name, bar in bars[words].items()), (found, bars[words])


def test_every_bar_belongs_to_a_decoder():
    """Guards against bars of what is gone."""
    assert sorted(json.loads(FILE.read_text())) == sorted(CASES)
