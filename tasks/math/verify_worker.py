"""Run as a program: reads questions as JSON lines and writes what math-verify makes of them.

A pair of answers is answered by whether the two are equal, a single expression by the rational number it stands for,
or null. It is a process of its own because math-verify bounds its work by alarm signals, which need the main thread,
and because some expressions keep compiled code busy for ever, which only the end of a process stops.
"""

import json
import logging
import sys

# Larger numbers answer no question, and Python does not write the largest.
LARGEST = 10**60


def main() -> None:
    """Answer one line per line until the input ends."""
    from math_verify import parse, verify

    logging.disable()

    for line in sys.stdin:
        question = json.loads(line)
        if isinstance(question, str):
            reply = _rational(parse(f"\\boxed{{{question}}}", parsing_timeout=5))
        else:
            gold, answer = (parse(f"\\boxed{{{text}}}", parsing_timeout=5) for text in question)
            reply = bool(gold and answer and verify(gold, answer, timeout_seconds=5))
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


def _rational(parsed: list) -> str | None:
    """Return the exact value of what was parsed as `p` or `p/q`."""
    import sympy

    if not parsed or not isinstance(parsed[0], sympy.Expr) or not parsed[0].is_number:
        return None
    try:
        value = sympy.nsimplify(parsed[0], rational=True).doit()
    except (ArithmeticError, TypeError, ValueError):
        return None
    return str(value) if value.is_Rational and abs(value) < LARGEST else None


if __name__ == "__main__":
    main()
