"""Reachability in directed graphs: is there a path from one node to another (after arXiv:2310.07923)?

Without notes the verdict is one serial step; with notes (the path, or the search) decoding may take as many steps as
the search does. Graphs with and without a path have the same number of edges, the same length of planted paths, one
edge out of the start and one into the goal, so that no count gives the answer away.
"""

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

from tasks import settings
from tasks.lists.generator import stream
from tasks.lists.splits import SPLITS, split_of
from tasks.task import Encoder, Grading, Message, Prompt, Sample, Score

Edge = tuple[str, str]
NOTES = ("none", "path", "bfs")
MOST_NODES = 26

TEMPLATES = {
    "own-1": "Directed edges:\n{edges}\nIs there a path from {start} to {goal}? {task}",
    "own-2": "In a directed graph, can one get from {start} to {goal}? {task}\nIts edges are:\n{edges}",
}
_VERDICT = '"= Y" if there is a path and "= N" if there is none'
_TASKS = {
    "none": f"Reply with {_VERDICT}, and nothing else.",
    "path": "Write the nodes of such a path in order, or, if there is none, the nodes that a breadth-first search from "
    f"the first node finds. Then write {_VERDICT}.",
    "bfs": f"Write the nodes in the order in which a breadth-first search from the first node finds them. Then write "
    f"{_VERDICT}.",
}


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One question: edges in the order shown, the two nodes, the verdict, and the planted path from `start`."""

    edges: tuple[Edge, ...]
    start: str
    goal: str
    reachable: bool
    path: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GraphReach:
    """Graphs of `nodes` nodes and planted paths of 2 to `longest_path` edges; `notes` none, path or bfs come first.

    Renderer `chat` puts it in words; `tiny` writes `<bos> graph_reach <none> <none> <arg> u v u v .. <pad>.. : s t
    <sep>`. An answer is notes, then `=` and Y or N; it is correct if the verdict is. Raises ConfigError.
    """

    name: str
    nodes: int = 12
    longest_path: int = 4
    notes: str = "none"
    summary: str = ""
    samples: int = 500
    split: str = "test"
    seed: int = 0
    renderer: str = "chat"
    template: str = "own-1"
    gen_length: int = 64

    def __post_init__(self) -> None:
        settings.refuse(self, self._problems())

    @property
    def templates(self) -> tuple[str, ...]:
        """The wordings that exist for this renderer."""
        return ("fixed",) if self.renderer == "tiny" else tuple(TEMPLATES)

    def sources(self) -> list[Path]:
        """Return nothing: problems are drawn."""
        return []

    def instances(self) -> list[Sample]:
        """Return the samples: number i is the same whatever their count."""
        graphs = (self._draw(number) for number in range(self.samples))
        return [
            Sample(id=f"reach-n{self.nodes}-{self.split}-s{self.seed}-{i}", prompt=self._ask(graph), instance=graph)
            for i, graph in enumerate(graphs)
        ]

    def score(self, sample: Sample, text: str) -> Score:
        """Grade the verdict after the last `=`; `strict` wants the very notes too."""
        answer = text.partition("<eos>")[0] if self.renderer == "tiny" else text
        notes, sign, rest = answer.rpartition("=")
        found = re.match(r'\s*"?([YN])\b', rest) if sign else None
        verdict = found.group(1) if found else None
        correct = verdict == _letter(sample.instance)
        nodes = re.findall(r"(?<![\w'])[a-z](?![\w'])", notes)
        return Score(
            correct=correct,
            strict=correct and nodes == list(self._notes(sample.instance)),
            detail="" if correct else "wrong verdict" if verdict else "no verdict found",
            extracted=verdict,
        )

    def grading(self) -> Grading:
        """Return nothing: verdicts rest on the texts alone."""
        return Grading()

    def max_target_tokens(self, tokenizer: Encoder) -> int:
        """Return the tokens of the longest answer, end token included."""
        return 1 + max(len(tokenizer.encode(self.answer(sample))) for sample in self.instances())

    def answer(self, sample: Sample) -> str:
        """Return the right answer, without the end."""
        return " ".join([*self._notes(sample.instance), "=", _letter(sample.instance)])

    def _notes(self, graph: Graph) -> Sequence[str]:
        if self.notes == "none":
            return ()
        return graph.path if self.notes == "path" and graph.reachable else breadth_first(graph.edges, graph.start)

    def _draw(self, number: int) -> Graph:
        rng = stream("graph_reach", self.nodes, self.longest_path, self.split, self.seed, number)
        while True:
            graph = draw_graph(rng, self.nodes, self.longest_path)
            if split_of([node for edge in graph.edges for node in edge]) == self.split:
                return graph

    def _ask(self, graph: Graph) -> Prompt:
        if self.renderer == "tiny":
            flat = [node for edge in graph.edges for node in edge]
            padding = ["<pad>"] * (2 * (2 * self.longest_path + self.nodes) - len(flat))
            header = ["<bos>", "graph_reach", "<none>", "<none>", "<arg>"]
            return " ".join([*header, *flat, *padding, ":", graph.start, graph.goal, "<sep>"])
        edges = "\n".join(f"{one} -> {other}" for one, other in graph.edges)
        fields = {"edges": edges, "start": graph.start, "goal": graph.goal, "task": _TASKS[self.notes]}
        return [Message(role="user", content=TEMPLATES[self.template].format(**fields))]

    def _problems(self) -> Iterator[tuple[str, str]]:
        renderers = ("chat", "tiny")
        choices = {"notes": NOTES, "split": SPLITS, "renderer": renderers, "template": self.templates}
        yield from settings.unknown(self, choices)
        yield from settings.below_one(self, "samples", "gen_length")
        yield from settings.too_many(self)
        if self.longest_path < 2:
            yield "longest_path", "must be at least 2"
        least = 2 * (self.longest_path + 1)
        if not least <= self.nodes <= MOST_NODES:
            yield "nodes", f"must be from {least} (two planted paths apart) to {MOST_NODES}"


def draw_graph(rng: Random, nodes: int, longest_path: int) -> Graph:
    """Draw a graph with or without a path, each with probability one half.

    Two disjoint paths of equal length are planted: with a path, the first leads from start to goal; without one, the
    first begins at the start in one part of the nodes and the second ends at the goal in the other part. As many
    further edges as there are nodes are added, without a path none of them from the first part into the second;
    none leaves the start or enters the goal.
    """
    names = rng.sample(string.ascii_lowercase, nodes)
    reachable, length = rng.random() < 0.5, rng.randint(2, longest_path)
    first, second = names[: length + 1], names[length + 1 : 2 * (length + 1)]
    rest = names[2 * (length + 1) :]
    cut = rng.randint(0, len(rest))
    near = {*first, *rest[:cut]}
    start, goal = first[0], first[-1] if reachable else second[-1]
    edges = {*pairwise(first), *pairwise(second)}
    planted = len(edges)
    while len(edges) < planted + nodes:
        one, other = rng.sample(names, 2)
        crosses = one in near and other not in near
        if one != start and other != goal and (reachable or not crosses):
            edges.add((one, other))
    shown = sorted(edges)
    rng.shuffle(shown)
    return Graph(edges=tuple(shown), start=start, goal=goal, reachable=reachable, path=tuple(first))


def breadth_first(edges: Sequence[Edge], start: str) -> tuple[str, ...]:
    """Return the nodes that a search from `start` finds, in that order; of one node's edges the earlier goes first."""
    found = [start]
    for node in found:
        found += [other for one, other in edges if one == node and other not in found]
    return tuple(found)


def _letter(graph: Graph) -> str:
    return "Y" if graph.reachable else "N"
