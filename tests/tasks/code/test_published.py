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


C = "c"
FENCED = "```python\nc\n```"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        # Both marks: both quotes go, or the first; a last one alone stays.
        (f"[BEGIN]\n '{CODE}' \n[DONE] \n", CODE),
        (f"[BEGIN]\n{CODE}\n[DONE]\nmore", CODE),
        ("[BEGIN]'c'[DONE]", C),
        ("[BEGIN] 'c [DONE]", C),
        ("[BEGIN] c' [DONE]", "c'"),
        ("[BEGIN] c'\nd' \n[DONE]", "c'\nd'"),
        ("[BEGIN] ''c'' [DONE]", "'c'"),
        ('[BEGIN] "c" [DONE]', '"c"'),
        ("[BEGIN] x = 'a' [DONE]", "x = 'a'"),
        ("[BEGIN] 'a' + 'b' [DONE]", "a' + 'b"),
        ("[BEGIN]\n[DONE]", ""),
        ("[BEGIN] '' [DONE]", ""),
        ("[BEGIN] ' [DONE]", ""),
        # Marks without brackets, or with one.
        ("BEGIN 'c' DONE", C),
        ("BEGIN c\nDONE", C),
        ("[BEGIN] c DONE", C),
        ("BEGIN c [DONE]", C),
        ("[BEGIN]\n c [DONE", "c ["),
        ("[BEGIN] 'c' [DONE", "c' ["),
        ("[BEGIN] c DONE]", C),
        ("BEGIN] c [DONE]", "] c"),
        ("[BEGIN c [DONE]", C),
        # Several marks: from the first BEGIN to the last DONE, cut at the first DONE in between.
        ("[BEGIN] c [DONE] d [DONE]", C),
        ("[BEGIN] 'c' [DONE] 'd' [DONE]", C),
        ("[BEGIN] c [BEGIN] d [DONE]", "c [BEGIN] d"),
        ("[BEGIN] [BEGIN] 'c' [DONE]", C),
        ("[DONE] [BEGIN] c", C),
        ("[DONE] c [BEGIN]", ""),
        ("[DONE] c", ""),
        ("c DONE d", C),
        ("DONE", ""),
        # An end is missing.
        ("[BEGIN]\n c\n", C),
        ("[BEGIN]\n 'c\n", C),
        ("[BEGIN]\n 'c'\n", "c'"),
        ("[BEGIN]\n c'\n", "c'"),
        ("BEGIN c", "BEGIN c"),
        ("c\n[DONE]", C),
        ("c'\n[DONE]", C),
        ("'c'\n[DONE]", C),
        ("'c\n[DONE]", "'c"),
        ("x = 'c'\n[DONE]", C),
        ("'c' DONE", "'c"),
        # Fences count where a mark is missing, and cut what stands between marks.
        (FENCED, C),
        (f"Sure:\n{FENCED}\nbye", C),
        ("```\nc\n", C),
        ("```python\nc", C),
        ("```py\nc\n```", "py\nc"),
        ("c\n```", ""),
        ("c\n```\nd", "d"),
        ("```\nc\n```\n```python\nd\n```", "d"),
        ("```python\nc\n```\n```python\nd\n```", C),
        ("````", "`"),
        ("```python````c", "`"),
        ("[BEGIN]\n c\n```", ""),
        ("[BEGIN]\n c\n```\nd", "d"),
        (f"[BEGIN]\n{FENCED}", C),
        (f"[BEGIN]\n{FENCED}\n[DONE]", ""),
        ("[BEGIN]\n'```python\nc\n```'\n[DONE]", ""),
        ("[BEGIN]\nc\n```\n[DONE]", C),
        ("```\n[BEGIN] 'c' [DONE]\n```", C),
        ("```\n[BEGIN]\nc\n```", "[BEGIN]\nc"),
        ("```\nc\n[DONE]\n```", C),
        # Neither mark nor fence.
        (CODE, CODE),
        ("  c\n", C),
        ("'c'", "'c'"),
        ("a\\_b", "a_b"),
        ("", ""),
    ],
)
def test_opencompass_reads_marks_quotes_and_fences(text: str, program: str) -> None:
    """Guards the published verdicts on MBPP: what its evaluator takes from an answer, its oddities included."""
    assert opencompass_mbpp(text) == program


@pytest.mark.parametrize("text", ["DONE" + "BEGIN" + " " * 3000, "BEGIN'" * 500, "'" * 3000, "```" * 1000])
def test_no_answer_takes_the_evaluator_long(text: str) -> None:
    """Guards the run: patterns that try every start with every end need hours for one canvas of blanks."""
    assert len(opencompass_mbpp(text)) <= len(text)
