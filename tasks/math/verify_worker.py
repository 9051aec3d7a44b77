"""Run as a program: reads pairs of answers as JSON lines, writes whether math-verify takes them for equal.

It is a process of its own because math-verify bounds its work by alarm signals, which need the main thread, and
because some expressions keep compiled code busy for ever, which only the end of a process stops.
"""

import json
import logging
import sys


def main() -> None:
    """Answer one line per line until the input ends."""
    from math_verify import parse, verify

    logging.disable()

    for line in sys.stdin:
        gold, answer = (parse(f"\\boxed{{{text}}}", parsing_timeout=5) for text in json.loads(line))
        sys.stdout.write(json.dumps(bool(gold and answer and verify(gold, answer, timeout_seconds=5))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
