"""`decbench bench --targets`: ratios of real decodings and their own calls, in a shape that programs can read."""

import json
import os

import pytest
import torch

from harness.commands import bench, bench_targets
from harness.commands.bench_targets import Options, Recorder, Target, options, plain_decoders, targets
from harness.engine.shared.model import ForwardRequest
from harness.errors import ConfigError


def test_the_last_line_is_what_programs_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Guards the object that a release is checked by: name, bar, value, and whether that holds."""
    words = ["models=tiny_mdm", "decoders=threshold,freedave", "batches=2", "rounds=1"]
    assert bench.main(["--targets", "--json", *words]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["targets"]
    assert [one["name"] for one in found] == ["tiny_mdm threshold batch=2", "tiny_mdm freedave batch=2"]
    assert [one["bar"] for one in found] == [1.10, 1.25]
    for one in found:
        assert one["passed"] is (one["value"] <= one["bar"]) and 0.5 < one["value"] < 50
        assert one["calls"] > 1 and one["query_tokens"] > one["calls"]


@pytest.mark.slow
def test_causal_decoding_is_measured_beside_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    """Guards a comparison of unequal tokens, which the command refuses to make."""
    (one,) = targets(Options(models=("llama",), batches=(2,), rounds=1))
    assert one.calls == 32 and one.query_tokens == 2 * (24 + 31) and one.bar == 1.0
    (one,) = targets(Options(models=("tiny_ar",), batches=(1,), rounds=1))
    assert one.bar == 1.05 and one.calls <= 32


def test_bare_forwards_are_the_calls_that_were_made() -> None:
    """Guards the denominator: the same tokens, positions and logits, and nothing that a decoding did around them."""

    class Told:
        spec = device = None

        def __init__(self) -> None:
            self.calls: list[tuple[list[int], int]] = []

        def forward(self, request: ForwardRequest) -> torch.Tensor:
            self.calls.append((request.tokens_BT.tolist(), request.end))
            return request.tokens_BT

    told = Told()
    recorder = Recorder(told)  # type: ignore[arg-type]
    recorder.forward(ForwardRequest(torch.tensor([1, 2]), end=2))
    recorder.forward(ForwardRequest(torch.tensor([3]), end=3))
    recorder.again()
    assert told.calls == [([1, 2], 2), ([3], 3)] * 2


def test_every_plain_method_has_a_target() -> None:
    """Guards a method that is left out, and ones with a verifier or a cache among those of whole canvases."""
    plain = plain_decoders()
    assert {"llada", "threshold", "saber", "klass"} <= {*plain} and not {"freedave", "lopa", "sdar"} & {*plain}


def test_a_bar_is_kept_by_what_reaches_it() -> None:
    """Guards the verdict at the bar."""
    assert Target(name="a", bar=1.1, value=1.1, calls=1, query_tokens=1).passed
    assert not Target(name="a", bar=1.1, value=1.1001, calls=1, query_tokens=1).passed


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("models=tiny_mdn", "did you mean tiny_mdm"),
        ("decoders=thresold", "did you mean threshold"),
        ("batches=0", "batches=0: must be a whole number of at least 1"),
        ("rounds=3,4", "rounds=3,4"),
        ("round=3", "did you mean rounds"),
        ("batches=99999999999999999999", "batches=99999999999999999999: must be a whole number"),
        ("models=", "models=: names nothing to measure"),
        ("decoders=", "decoders=: names nothing to measure"),
        ("models=gpt2 decoders=threshold", "models=gpt2: is not measured with decoders=threshold; gpt2 has ar_greedy"),
        ("models=tiny_mdm decoders=ar_greedy", "models=tiny_mdm: is not measured with decoders=ar_greedy; .* more"),
        (
            "models=tiny_mdm decoders=threshold,ar_greedy",
            "decoders=ar_greedy: is not measured on models=tiny_mdm; it is on tiny_ar, gpt2, llama",
        ),
        ("models=random_126464 batches=65536", "batches=65536 models=random_126464: takes at least .* GB of memory"),
    ],
)
def test_what_cannot_be_measured_is_refused(word: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards minutes of measuring under a name that was mistyped, and a list of nothing as a success."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1 << 12, "SC_PHYS_PAGES": 1 << 22}.__getitem__)
    with pytest.raises(ConfigError, match=message):
        options(word.split())


def test_targets_without_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a line for users in place of what an allocator says."""

    def refuse(*_: object) -> Target:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(bench_targets, "_causal", refuse)
    with pytest.raises(ConfigError, match="batches=4 models=tiny_ar: there was not enough memory; choose less"):
        list(targets(Options(models=("tiny_ar",), batches=(4,))))
