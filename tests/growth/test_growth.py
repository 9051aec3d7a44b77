"""The table of how work grows: its exponents on data that are known, and its measurements on work that is."""

from functools import partial
from pathlib import Path

import pytest

from tests.growth.__main__ import Series, decodings, fill, line, runs, stores
from tests.growth.decodings import operations
from tests.growth.exponent import exponent, upper_half
from tests.growth.measured import Measured, in_a_fork, measured

SIZES = (1, 2, 4, 8, 16)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_power_of_known_data_is_found(power: float):
    """Guards the fit: whatever the factor, and with errors that cancel out."""
    values = [3 * size**power for size in SIZES]
    assert exponent(SIZES, values) == pytest.approx(power)
    wavering = [value * (1.1 if at % 2 else 1 / 1.1) for at, value in enumerate(values)]
    assert exponent(SIZES, wavering) == pytest.approx(power, abs=0.05)


def test_a_constant_part_hides_a_power_at_small_sizes():
    """Guards the second column: a square beside a constant is told from the larger half alone."""
    values = [100 + size**2 for size in (1, 2, 4, 8, 16, 32, 64, 128)]
    assert exponent((1, 2, 4, 8, 16, 32, 64, 128), values) < 1.3 < upper_half((1, 2, 4, 8, 16, 32, 64, 128), values)
    assert upper_half((1, 2, 4), [1, 2, 4]) == pytest.approx(1)


@pytest.mark.parametrize(("sizes", "values"), [([], []), ([4], [1]), ([2, 2], [1, 3]), ([1, 2], [1]), ([1, 2], [0, 1])])
def test_what_tells_no_power_is_refused(sizes: list[float], values: list[float]):
    """Guards against a slope through one point, and a logarithm of nothing."""
    with pytest.raises(ValueError, match=r"."):
        exponent(sizes, values)


def hold(size: int):
    return lambda: bytearray(b"x") * (size << 20)


def test_memory_is_that_of_the_work():
    """Guards the measurement: 32 MiB are 32 MiB, though the process before held more, or this one has had them."""
    found = measured(partial(hold, 32), partial(hold, 1))
    assert found.memory_bytes / 2**20 == pytest.approx(32, abs=1) and found.seconds > 0


def test_work_that_fails_is_no_measurement(capfd: pytest.CaptureFixture[str]):
    """Guards the page against a point that was never reached."""
    with pytest.raises(RuntimeError, match="the work failed in its process"):
        measured(lambda: lambda: 1 / 0, partial(hold, 1))
    assert "ZeroDivisionError" in capfd.readouterr().err


def squared(prepare: partial[object], warm: object) -> Measured:
    """Return what a quadratic would be measured to take, on a machine that nothing else keeps busy."""
    (size,) = prepare.args
    return Measured(seconds=1e-8 * size**2, memory_bytes=0)


@pytest.mark.parametrize(("expected", "marked"), [(2.0, False), (1.0, True)])
def test_what_grows_faster_than_expected_is_marked(expected: float, marked: bool, monkeypatch: pytest.MonkeyPatch):
    """Guards the page's one claim, on times that are quadratic."""
    monkeypatch.setattr("tests.growth.__main__.measured", squared)
    one = Series(told="a square", of="size", sizes=(400, 800, 1600, 3200), prepare=hold, time=expected, memory=1)
    assert ("too much" in line(one, 1)) is marked


def test_operations_are_those_of_calls():
    """Guards what decodings are held against: eight calls over 48 positions; twice the rows are twice the work."""
    one, two = (operations("method.steps=8", rows=rows) for rows in (1, 2))
    per_position = 2 * (2 * (4 * 64 * 64 + 3 * 64 * 192))
    assert two == 2 * one
    head = 2 * 64 * 512 * one_call_heads()
    assert one == pytest.approx(8 * (48 * per_position + 4 * 2 * 64 * 48 * 48) + head)


def one_call_heads() -> int:
    """Return the positions that get logits in eight calls which decide four each, of 32 that are open at first."""
    return sum(range(32, 0, -4))


@pytest.mark.slow
def test_every_series_can_be_measured(tmp_path: Path):
    """Guards the page against work that no longer exists: the three smallest sizes of each."""
    in_a_fork(partial(fill, tmp_path, (50, 100, 200)))
    told = [line(one, 0) for series in (decodings(), runs(tmp_path), stores(tmp_path)) for one in series]
    assert len(told) == 12 and all(one.count("|") == 12 for one in told)
