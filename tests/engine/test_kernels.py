"""Scores in one pass say what the plain path says: compiled on a GPU, by Triton's interpreter without one.

Triton comes with torch's builds for GPUs. Elsewhere `pip install --no-deps --target FOLDER triton==3.7.1` and FOLDER in
PYTHONPATH have these tests run.
"""

import importlib
import math
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from torch import Tensor

from harness.engine.shared import prediction

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch's builds for GPUs")


@pytest.fixture(scope="module")
def kernels() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")  # read when Triton is imported, and by what that imports later
        yield importlib.import_module("harness.engine.shared.kernels")


def logits(vocab: int, dtype: torch.dtype, spread: float = 6.0) -> Tensor:
    generator = torch.Generator().manual_seed(vocab)
    made_NV = spread * torch.randn(7, vocab, generator=generator, dtype=torch.float64)
    made_NV[0, [0, vocab // 2, -1]] = 40.0  # three equals, the first of which is the token
    made_NV[1] = -torch.inf
    made_NV[1, vocab // 2] = 3.0  # certain
    made_NV[2] = 0.5
    made_NV[3, ::2] = -torch.inf
    return made_NV.to(DEVICE, dtype)


@pytest.mark.parametrize("vocab", [2, 31, 4096, 9001])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_pass_says_what_the_plain_path_says(kernels: ModuleType, vocab: int, dtype: torch.dtype) -> None:
    """Guards ends of blocks, equals, certainty, tokens that cannot be, and vocabularies of more blocks than one."""
    logits_NV = logits(vocab, dtype)
    wide_NV = logits_NV.double().cpu()
    near = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 4e-2}[dtype]
    tokens_N, log_p_N, behind_N = kernels.surest(logits_NV)
    for made_N, plain_N in zip((tokens_N, log_p_N, behind_N), prediction.surest(wide_NV), strict=True):
        torch.testing.assert_close(made_N.to(plain_N), plain_N, atol=near, rtol=near)
    assert {log_p_N.dtype, behind_N.dtype} == {dtype}
    for given_N in (tokens_N, tokens_N.flip(0), torch.full_like(tokens_N, vocab - 1)):
        made_N, plain_N = (
            kernels.log_probability(logits_NV, given_N),
            prediction.log_probability(wide_NV, given_N.cpu()),
        )
        torch.testing.assert_close(made_N.to(plain_N), plain_N, atol=near, rtol=near)
    entropy_N = torch.special.entr(wide_NV.softmax(-1)).sum(-1)
    torch.testing.assert_close(kernels.entropy(logits_NV).to(entropy_N), entropy_N, atol=1e-4, rtol=1e-4)
    assert float(kernels.entropy(logits_NV)[2]) == pytest.approx(math.log(vocab), abs=1e-5)


def test_confidence_keeps_the_order_of_what_is_next_to_certain(kernels: ModuleType) -> None:
    """Guards float32 at p next to 1, where a softmax saturates and thresholds of 1 - 1e-9 tell nothing apart."""
    logits_NV = torch.zeros(3, 50, device=DEVICE)
    logits_NV[:, 4] = torch.tensor([22.0, 24.0, 26.0], device=DEVICE)
    _, log_p_N, _ = kernels.surest(logits_NV)
    assert log_p_N[0] < log_p_N[1] < log_p_N[2] < 0


def test_a_gpu_with_triton_gets_them_and_a_processor_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the choice: by where the logits are, and by what is installed."""

    class OnGpu:
        is_cuda = True

    assert prediction._kernels(torch.zeros(1, 2)) is None
    assert prediction._kernels(OnGpu()) is not None  # type: ignore[arg-type]
    monkeypatch.setattr(prediction, "_has_triton", lambda: False)
    assert prediction._kernels(OnGpu()) is None  # type: ignore[arg-type]
