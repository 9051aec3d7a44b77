"""Where the answer to a question ends: base models go on with a question of their own, and answer that too."""

import re

# At the beginning of a line, or after whatever else if the word begins with a capital and has its colon.
_QUESTION = re.compile(
    r"(?P<line>^[ \t#*>_-]{0,8})?(?<!\w)(?:(?:Next|New|Another)[ ])?"
    r"(?:Question|QUESTION|Problem|PROBLEM|Exercise|Example|Q|Human|User)[ ]?(?P<number>#?\d{1,4})?[*_ ]{0,3}:",
    re.MULTILINE,
)
_ANSWERED = re.compile(r"####[\s*_$]{0,8}[-\u2013\u2212+.]?\d|\\boxed\s*\{|answer is\W{0,8}\d", re.IGNORECASE)
_GIVEN = re.compile(r"^\W{0,8}(?:Givens?|Known|Facts|Information|Data)\b", re.MULTILINE)
_ILLUSTRATIONS = ("Exercise", "Example")


def before_next_question(text: str) -> str:
    """Return the part of an answer before the model begins a question of its own.

    A question is one of its own where the text before it holds an answer: one that is marked, or any number. A
    numbered question is then the next one after a marked answer only, because solutions in steps ask numbered ones;
    so is an example, and a question after a list of what is given repeats the one that was asked.
    """
    begin = 0
    for found in _QUESTION.finditer(text):
        before = text[begin : found.start()]
        plainly = (
            found["line"] is not None
            and found["number"] is None
            and not found[0].strip(" #*>_-\t").startswith(_ILLUSTRATIONS)
        )
        if _ANSWERED.search(before) or (plainly and re.search(r"\d", before) and not _GIVEN.search(before)):
            return text[: found.start()]
        begin = found.end()
    return text
