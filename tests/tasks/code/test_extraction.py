"""The program in an answer, wherever it stands, under our own rules."""

import pytest

from tasks.code.extraction import blocks, extract_code

HEADER = 'def f(x):\n    """Square."""\n'
CODE = "def f(x):\n    return x * x"


@pytest.mark.parametrize(
    ("text", "code", "path"),
    [
        (f"```python\n{CODE}\n```", CODE, "fence"),
        (f"Sure!\n```python\n{CODE}\n```\nThis squares x.", CODE, "fence"),
        (f"```\n{CODE}", CODE, "fence"),
        (f"First a try:\n```python\nf(2)\n```\nThen:\n```py\n{CODE}\n```", CODE, "fence"),
        (f"{CODE}\n```\nThis squares x.", CODE, "before_fence"),
        (f"[BEGIN]\n{CODE}\n[DONE]\nmore", CODE, "marks"),
        (f"{CODE}\n[DONE]\n[BEGIN", CODE, "marks"),
        (CODE, CODE, "whole"),
        (f"{CODE}\nThis function squares x.", CODE, "whole"),
        (f"{CODE}\n\nprint(f(", CODE, "whole"),
        ("import math\nf = lambda x: x * x", "import math\nf = lambda x: x * x", "whole"),
        ("from operator import neg as f", "from operator import neg as f", "whole"),
        ("class f:\n    pass", "class f:\n    pass", "whole"),
        ("def g(x):\n    return x", None, "none"),
        ("The answer is x squared.", None, "none"),
        ("", None, "none"),
    ],
)
def test_programs_are_found(text: str, code: str | None, path: str) -> None:
    """A right program that counts as wrong because of what stands around it."""
    assert extract_code(text, "f") == (code, path)


@pytest.mark.parametrize(
    "text",
    [
        "    return x * x",
        "    return x * x\n\nprint(f(2",
        "return x * x",
        "y = x * x\n    return y",
        "    y = x * x\n    return y\n```\nDone.",
        "Here:\n```python\n    return x * x\n```",
    ],
)
def test_bodies_go_on_from_the_header(text: str) -> None:
    """A completion of the given header, judged as if it had to be a whole program, or with its first blanks lost."""
    code, path = extract_code(text, "f", HEADER)
    assert path == "body" and code is not None and code.startswith(HEADER)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["f"](3) == 9  # type: ignore[operator]


def test_nothing_is_removed_from_inside() -> None:
    """Functions without return, conditions and assignments in place thrown away with the prose."""
    code = "COUNT = 0\nCOUNT += 1\nif COUNT:\n    def f(x):\n        pass\n\ndef f(x):\n    yield COUNT"
    assert extract_code(f"```python\n{code}\n```", "f") == (code, "fence")


def test_texts_that_break_parsers_are_wrong_answers() -> None:
    """A canvas full of brackets that ends the whole run with a MemoryError."""
    for text in ("(" * 10_000, "-" * 10_000 + "1", "x = '\0'", "\ud800", "[" * 95 + "f" * 95, "lambda:" * 3000 + "1"):
        assert extract_code(text, "f", HEADER)[0] is None, text[:9]


def test_many_lines_of_prose_are_given_up() -> None:
    """An endless search: at most 200 trailing lines are tried."""
    assert extract_code(CODE + "\nwords of prose" * 150, "f")[0] == CODE
    assert extract_code(CODE + "\nwords of prose" * 250, "f")[0] is None


def test_blocks_may_be_open_or_empty() -> None:
    """A fence that is not closed, or closed at once."""
    assert blocks("a\n```\n```\nb\n  ```python x\nc") == ("a", ["", "c"])
    assert blocks("a") == ("a", [])
