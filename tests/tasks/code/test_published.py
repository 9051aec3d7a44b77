"""The clean-up of published evaluations, with the defects that moved their numbers."""

import pytest

from tasks.code.published import fenced, opencompass_humaneval, opencompass_mbpp, sanitize

CODE = "def f(x):\n    return x * x"
HELPED = "def g(x):\n    return x\n\ndef f(x):\n    return g(x)"


def test_fences_of_other_languages_are_not_seen() -> None:
    """A more forgiving reading than the published one: its numbers would be higher."""
    assert fenced(f"a ```python\n{CODE}\n``` b") == f"{CODE}\n"
    assert fenced(f"```python\n{CODE}") == CODE
    assert fenced(f"```\n{CODE}\n```") == f"```\n{CODE}\n```"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"Sure, here it is:\n{CODE}\nThis squares x.", CODE),
        (f"import math\n{CODE}\nprint(f(2))", f"import math\n\n{CODE}"),
        (f"import math\n{CODE}\ndef g(x):\n    return f(x)", f"import math\n\n{CODE}"),
        (HELPED + "\n", HELPED),
        ("def f(x):\n    yield x", ""),
        ("def f(x):\n    print(x)", ""),
        (f"N = 1\nN += 1\n{CODE.replace('x * x', 'N')}", f"N = 1\n\n{CODE.replace('x * x', 'N')}"),
        ("C = open\ndef f(x):\n    return C.x", "def f(x):\n    return C.x"),
        (f"def f(x):\n    return 1\n{CODE}", CODE),
        (f"class A:\n\tb = 1\r\n{CODE}\n", CODE),
        ("no code at all", ""),
    ],
)
def test_sanitize_keeps_what_the_entry_point_reaches(text: str, kept: str) -> None:
    """Another clean-up than the published one: 13 points of MBPP hang on it."""
    assert sanitize(text, "f") == kept


def test_without_an_entry_point_all_definitions_stay() -> None:
    """Helpers lost where the published evaluation keeps them."""
    assert (
        sanitize(f"{CODE}\ndef g(x):\n    return 1\nh = 2\nh, k = 3, 4") == f"{CODE}\n\ndef g(x):\n    return 1\nh = 2"
    )


def test_only_a_hundred_lines_are_looked_at() -> None:
    """A search that takes minutes on a long answer."""
    assert sanitize("\n" * 99 + "a = 1\nb = 2") == "a = 1"


def test_opencompass_takes_the_first_closed_fence() -> None:
    """Published numbers depend on it: an open fence is not seen, and the first line loses its indentation."""
    assert opencompass_humaneval(f"text\n```python\n{CODE}\n```\n```\nother\n```") == f"{CODE}\n"
    assert opencompass_humaneval("    return x\n") == "return x\n"
    assert opencompass_humaneval("```python\nopen") == "```python\nopen"


@pytest.mark.parametrize(
    "text",
    [
        f"[BEGIN]\n '{CODE}' \n[DONE] \n",
        f"[BEGIN]\n{CODE}\n[DONE]\nmore",
        f"BEGIN {CODE}\nDONE",
        f"[BEGIN]\n```python\n{CODE}\n```\n[DONE]",
        f"Sure:\n```python\n{CODE}\n```\nbye",
        f"```\n{CODE}\n",
        f"{CODE}\n[DONE]",
        CODE,
    ],
)
def test_opencompass_reads_marks_quotes_and_fences(text: str) -> None:
    """A form of answer that OpenCompass accepts and we do not."""
    assert opencompass_mbpp(text) == CODE
