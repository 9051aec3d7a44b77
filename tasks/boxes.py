r"""Where an answer stands in a text: inside \boxed{...}, or between the tags of a format."""

import re

# A backslash hides the brace after it, and itself where no box begins there.
_BRACES = re.compile(r"\\boxed\s*\{|\\\\(?!boxed)|\\[{}]|[{}]")


def last_boxed(text: str) -> str | None:
    r"""Return what is inside the last \boxed{...} whose braces are balanced, or None; \{ and \} are no braces."""
    place = last_box(text)
    return None if place is None else text[slice(*place)]


def last_box(text: str) -> tuple[int, int] | None:
    r"""Return the places where the inside of the last balanced \boxed{...} begins and ends; one pass over the text."""
    opened: list[int | None] = []
    found: tuple[int, int] | None = None
    for mark in _BRACES.finditer(text):
        if mark[0] == "{":
            opened.append(None)
        elif mark[0].startswith("\\boxed"):
            opened.append(mark.end())
        elif mark[0] == "}" and opened:
            begin = opened.pop()
            if begin is not None and (found is None or begin > found[0]):
                found = begin, mark.start()
    return found


def last_tagged(text: str, tag: str) -> str | None:
    """Return what is between the last opening tag and its end, or the end of the text; None without the tag."""
    _, found, rest = text.rpartition(f"<{tag}>")
    return rest.partition(f"</{tag}>")[0] if found else None
