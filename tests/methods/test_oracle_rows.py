"""Standard decoders on exact conditional marginals: accuracy and calls are closed forms, so they test the decoders.

Ties go to the lowest position and token here. The rows below do not hang on ties: where two choices tie, either leads
to the same accuracy and calls. Left out are rows in which a confidence equals what is required (insertion into 15 items
at a threshold of 0.9 meets exactly 9/10): rounding decides those.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from harness.config.build import build_method
from harness.config.composition import compose
from harness.config.oracle_factory import load_oracle
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.method import DiffusionMethod
from harness.runs.decode_batch import decode_batch
from harness.runs.measure import Measure, Measurement
from tasks.lists.generator import instance
from tasks.lists.instance import ListInstance
from tasks.lists.theory import answer_length
from tasks.lists.tiny import TinyRenderer

ORACLE = load_oracle(name="oracle", kind="masked_diffusion")

# operation -> n -> decoder -> (accuracy, calls); "k=0" commits everything at once
ROWS = {
    "shuffle": {6: {"k=1": (1, 6), "tau=0.7": (1, 6), "tau=0.9": (1, 6)}},
    "replace_random": {
        6: {"k=1": (1, 6), "k=3": (0, 2), "k=0": (0, 1), "tau=0.5": (0, 1), "tau=0.7": (0, 1), "tau=0.9": (1, 6),
            "f=0.7": (1, 4), "f=1.0": (1, 2), "f=1.3": (0, 1), "f=1.9": (0, 1)},
        15: {"k=1": (1, 15), "k=2": (1, 8), "k=3": (0, 5), "tau=0.9": (0, 1), "f=0.7": (1, 5), "f=1.3": (0, 1)},
    },
    "insert_random": {
        6: {"k=1": (1, 7), "k=2": (1, 4), "k=3": (1, 3), "k=0": (0, 1), "tau=0.5": (1, 2), "tau=0.7": (1, 4),
            "tau=0.9": (1, 7), "f=0.7": (1, 5), "f=1.3": (1, 4), "f=1.9": (1, 3)},
        15: {"k=3": (1, 6), "tau=0.5": (0, 1), "tau=0.7": (1, 5)},
    },
    "remove_random": {
        6: {"k=1": (1, 5), "k=2": (1, 3), "k=3": (1, 2), "k=0": (1, 1), "tau=0.5": (1, 1), "tau=0.7": (1, 3),
            "tau=0.9": (1, 5), "f=0.7": (1, 4), "f=1.0": (1, 3), "f=1.3": (1, 3), "f=1.9": (1, 2)},
        15: {"k=0": (1, 1), "tau=0.5": (1, 1), "tau=0.7": (1, 4), "tau=0.9": (1, 11)},
    },
    "sort": {6: {"k=0": (1, 1), "tau=0.9": (1, 1), "f=1.0": (1, 1)}},
}  # fmt: skip
CASES = [
    (op, n, decoder, expected)
    for op, by_n in ROWS.items()
    for n, by_decoder in by_n.items()
    for decoder, expected in by_decoder.items()
]


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Close `count` positions per step, fewer only at the end."""

    count: int

    def quota(self, canvas: Canvas) -> Tensor:
        """Return the count, or what is left."""
        return canvas.open_BL.sum(1).clamp(max=self.count)

    def surplus(self, canvas: Canvas) -> Tensor:
        """Return 0."""
        return torch.zeros_like(canvas.clock_B)


def decoder_of(decoder: str, length: int) -> DiffusionMethod:
    """Return a decoder of the table, built from its config, for an answer of known length."""
    kind, value = decoder.split("=")
    name = {"k": "llada", "tau": "threshold", "f": "factor"}[kind]
    knob = {"k": "steps=null", "tau": f"threshold={value}", "f": f"factor={value}"}[kind]
    cfg = compose([f"method={name}", f"method.{knob}", f"gen_length={length}", "method.score_dtype=float64"])
    method = build_method(cfg)
    assert isinstance(method, DiffusionMethod)
    return replace(method, schedule=Constant(count=int(value) or length)) if kind == "k" else method


def answers(op: str, n: int, decoder: str) -> list[tuple[bool, int]]:
    """Decode three lists with the real loop; return whether each is right and how many calls it took."""
    posed = [instance(op, n, "test", 0, i, max_items=n) for i in range(3)]
    length = answer_length(op, n)
    renderer = TinyRenderer(max_items=n)
    made = decode_batch(
        ORACLE.model,
        decoder_of(decoder, length),
        [ORACLE.tokenizer.encode(renderer.prompt(one, [])) for one in posed],
        seeds=[0] * len(posed),
        gen_length=length,
        measure=Measure(name=Measurement.COUNTS),
    )
    return [
        (_accepted(one, ORACLE.tokenizer.decode(generation.tokens)), counts.nfe)
        for one, generation, counts in zip(posed, made.generations, made.counts, strict=True)
    ]


def _accepted(one: ListInstance, text: str) -> bool:
    return one.accepts(tuple(text.split()))


@pytest.mark.parametrize(("op", "n", "decoder", "expected"), CASES, ids=[f"{o}-{n}-{d}" for o, n, d, _ in CASES])
def test_a_decoder_reproduces_its_row(op: str, n: int, decoder: str, expected: tuple[int, int]):
    """Guards every rule at once: a wrong comparison, quota or tie moves an integer here."""
    assert answers(op, n, decoder) == [(bool(expected[0]), expected[1])] * 3
