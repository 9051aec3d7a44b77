r"""Where an answer stands in a text: inside \boxed{...}, or between the tags of a format."""


def last_boxed(text: str) -> str | None:
    r"""Return what is inside the last \boxed{...} whose braces are balanced, or None; \{ and \} are no braces."""
    for start in reversed(_places(text, "\\boxed")):
        rest = text[start + len("\\boxed") :].lstrip()
        if rest.startswith("{") and (end := _closing(rest)) is not None:
            return rest[1:end]
    return None


def last_tagged(text: str, tag: str) -> str | None:
    """Return what is between the last opening tag and its end, or the end of the text; None without the tag."""
    _, found, rest = text.rpartition(f"<{tag}>")
    return rest.partition(f"</{tag}>")[0] if found else None


def _places(text: str, word: str) -> list[int]:
    places, start = [], text.find(word)
    while start >= 0:
        places.append(start)
        start = text.find(word, start + 1)
    return places


def _closing(text: str) -> int | None:
    """Return the place of the brace that closes the one which `text` begins with."""
    depth, escaped = 0, False
    for place, character in enumerate(text):
        if not escaped:
            depth += (character == "{") - (character == "}")
            if depth == 0:
                return place
        escaped = character == "\\" and not escaped
    return None
