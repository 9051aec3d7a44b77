"""Comparison of a run with itself: what is equal, what rounding explains, and what is another."""

from collections.abc import Mapping
from typing import Any

import pytest

from harness.results.reproduction import Rows, partings
from harness.results.schemas import SCHEMA_VERSION, STEPS, without_names
from tests.results.factory import run_row, sample_rows

RUN = {**run_row("a"), "dtype": "float32"}


def rows(sample: Mapping[str, Any] | None = None, *steps: Mapping[str, Any]) -> Rows:
    """Return a sample decoded in two steps, with other values in it and in the steps."""
    (plain,) = sample_rows(correct=[True], nfe=[2], latency_s=[1.0])
    traced = [
        dict.fromkeys(without_names(STEPS))
        | {"sample_id": "s0", "repetition": 0, "step": step, "positions": [step], "tokens": [step + 1]}
        | {"scores": [0.5], "n_computed": 8, "token_margin": 0.25, "predicted": [1, 2]}
        for step in range(2)
    ]
    plain |= {"output_ids": [1, 2], "decided_at": [0, 1], "token_margin": 0.25, "detail": "0x7f", "measures": "{}"}
    others = [one | dict(more) for one, more in zip(traced, [*steps, {}, {}], strict=False)]
    return Rows(samples=[plain | dict(sample or {})], steps=others)


@pytest.mark.parametrize(
    ("sample", "steps", "step", "field", "tie"),
    [
        ({"nfe": 3}, [], 1, "counters", False),
        ({"correct": False}, [], None, "correct", False),
        ({"extracted": "7"}, [], None, "extracted", False),
        ({"finish_reason": "budget"}, [], None, "finish_reason", False),
        ({"prompt_sha256": "other"}, [], None, "prompt_sha256", False),
        ({}, [{}, {"n_computed": 9}], 1, "n_computed", False),
        ({}, [{"predicted": [1, 9]}], 0, "predicted", False),
        ({}, [{"scores": [0.5 + 2**-20]}], 0, "scores", True),
        ({}, [{"scores": [0.5 + 2**-10]}], 0, "scores", False),
        ({"token_margin": 0.25 + 2**-20}, [], None, "token_margin", True),
        ({"output_ids": [1, 5]}, [{}, {"tokens": [5]}], 1, "tokens", False),
    ],
)
def test_the_first_thing_that_differs_is_named(
    sample: Mapping[str, Any], steps: list[Mapping[str, Any]], step: int | None, field: str, tie: bool
):
    """Guards every kind of column: exact ones, and numbers that other hardware rounds otherwise."""
    (found,) = partings(RUN, rows(), rows(sample, *steps), whole=True)
    assert (found.sample, found.step, found.tie) == ("s0", step, tie)
    assert field in (*found.fields, found.detail.partition(":")[0])


def test_a_token_that_rounding_decided_is_a_tie():
    """Guards the gate's rule: margins below what the dtype decides say that either token is right."""
    near = [{}, {"token_margin": 1e-6}]
    before = rows({"token_margin": 1e-6}, *near)
    now = rows({"token_margin": 1e-6, "output_ids": [1, 5]}, {}, {"token_margin": 1e-6, "tokens": [5]})
    (found,) = partings(RUN, before, now, whole=True)
    assert found.tie and found.step == 1 and found.fields == ("tokens",)


def test_seconds_and_words_are_not_compared():
    """Guards against calling a slower machine another decoding."""
    assert partings(RUN, rows(), rows({"latency_s": 9.0, "cpu_s": 3.0, "detail": "0x8e"}), whole=True) == []


def test_padding_is_not_compared():
    """Guards rows whose neighbours were others: in a run that went on where it was stopped, or a part of one."""
    assert partings(RUN, rows(), rows({"padded_tokens": 7}), whole=True) == []


def test_columns_that_an_older_store_has_not_are_not_compared():
    """Guards runs of older columns, in which what is not known is null."""
    older = {**RUN, "schema_version": SCHEMA_VERSION - 1}
    now = rows({"reader": "text"})
    assert partings(older, rows({"reader": None}), now, whole=True) == []
    assert [one.fields for one in partings(RUN, rows({"reader": None}), now, whole=True)] == [("reader",)]
