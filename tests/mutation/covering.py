"""Which tests a mutant has to pass: those that run its line, then its function, then its module, in bounded time."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from coverage import CoverageData

Tests = dict[str, float]
"""Seconds of every test that passed, by node id."""


_IN_ORDER = ("tests/test_readme.py", "tests/test_docs.py")
"""Files of commands that follow one another, as a reader types them: one alone fails without a mutant."""


def passed(junit: Path) -> Tests:
    """Read pytest's own report of a run, but for files whose tests go in order.

    A test that failed or was skipped would tell nothing of a mutant.
    """
    found = {
        f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}": float(case.attrib["time"])
        for case in ElementTree.parse(junit).iter("testcase")
        if {child.tag for child in case} <= {"properties"}
    }
    return {test: seconds for test, seconds in found.items() if not test.startswith(_IN_ORDER)}


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What a recorded run of the suite tells: the tests behind every line of the files in `tree`."""

    tree: Path
    data: CoverageData
    tests: Tests

    def of(self, path: str, line: int, *, seconds: float) -> list[str]:
        """Return tests, nearest first, that took at most `seconds` in all (one at least), none if none is known.

        Of tests equally near, the quickest case of each function comes first: other functions see other things. A
        module without a function of its own is run by whoever imports it.
        """
        chosen: dict[str, None] = {}
        spent = 0.0
        for behind in self._nearest(path, line):
            for test in _varied(behind.difference(chosen), self.tests):
                if chosen and spent + self.tests[test] > seconds:
                    return list(chosen)
                chosen[test] = None
                spent += self.tests[test]
        return list(chosen)

    def _nearest(self, path: str, line: int) -> Iterator[set[str]]:
        known = False
        for lines in _scopes((self.tree / path).read_text(), line):
            found = self._behind(path, lines)
            known |= bool(found)
            yield found
        for user in () if known else self._importers(path):
            yield self._behind(user, range(1, (self.tree / user).read_text().count("\n") + 2))

    def _importers(self, path: str) -> list[str]:
        module = path.removesuffix(".py").replace("/", ".")
        recorded = sorted(self.data.measured_files())
        return [file for file in recorded if module in _imported((self.tree / file).read_text())]

    def _behind(self, path: str, lines: range) -> set[str]:
        contexts = self.data.contexts_by_lineno(path)
        found = {context.rpartition("|")[0] for line in lines for context in contexts.get(line, ())}
        return found & self.tests.keys()


def _imported(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _varied(tests: set[str], seconds: Tests) -> list[str]:
    ranks: defaultdict[str, int] = defaultdict(int)
    order = []
    for test in sorted(tests, key=lambda test: (seconds[test], test)):
        function = test.partition("[")[0]
        order.append((ranks[function], seconds[test], test))
        ranks[function] += 1
    return [test for _, _, test in sorted(order)]


def _scopes(source: str, line: int) -> Iterator[range]:
    """Yield the lines to look at, ever wider: the line if it runs in a function, its functions and classes, the module.

    What runs when a module is imported (defaults, decorators, fields) would name whichever test came first.
    """
    around = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first <= line <= node.end_lineno:
                around.append(node)
    if around and isinstance(around[-1], ast.FunctionDef) and line >= around[-1].body[0].lineno:
        yield range(line, line + 1)
    yield from (range(node.lineno, node.end_lineno + 1) for node in reversed(around))
    yield range(1, source.count("\n") + 2)
