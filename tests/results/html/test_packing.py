"""Content of a page that nothing in it can break out of."""

import math

import pytest

from harness.results.html.packing import packed, unpacked

HOSTILE = "</script><script>alert(1)</script>\u2028\u2029<!--&\"'\x00 ünï"


@pytest.mark.parametrize("value", [HOSTILE, {"a": [1, None, True, HOSTILE]}, [], {}, 0.1])
def test_a_value_comes_back(value: object):
    """Guards outputs of models, whatever they hold."""
    assert unpacked(packed(value)) == value


def test_packed_text_holds_no_markup_and_is_the_same_for_the_same_value():
    """Guards against elements that end early, and against pages that differ without a reason."""
    text = packed({"output": HOSTILE})
    assert text == packed({"output": HOSTILE})
    assert not {*text} & {*"<>&'\"\u2028"}


def test_what_is_no_number_is_null():
    """Guards readers of JSON, which knows neither nan nor infinities."""
    assert unpacked(packed({"a": (math.nan, math.inf, 1.5)})) == {"a": [None, None, 1.5]}


def test_text_that_is_no_unicode_is_spelled_out():
    """Guards names of files, which may be any bytes."""
    assert unpacked(packed(["\udc80"])) == [r"\udc80"] or unpacked(packed(["\udc80"])) == ["\udc80"]
