"""Serial tasks: groups that are what they are called, graphs without a cue, and graders of both."""

from collections import Counter
from itertools import pairwise, product

import pytest

from harness.config import compatibility
from harness.config.build import build_task
from harness.config.composition import compose
from harness.errors import ConfigError
from harness.models.tokenizer import SymbolTokenizer
from tasks.serial import FsmWord, GraphReach
from tasks.serial.graph_reach import breadth_first
from tasks.serial.groups import GROUPS, numbering

ORDERS = {"s5": 120, "a5": 60, "s3": 6, "c60": 60, "parity": 2}


def words(**settings: object) -> FsmWord:
    return FsmWord(**{"name": "w", "samples": 30} | settings)


def graphs(**settings: object) -> GraphReach:
    return GraphReach(**{"name": "g", "samples": 200} | settings)


@pytest.mark.parametrize("name", GROUPS)
def test_generators_make_the_group(name: str) -> None:
    """Guards the groups by order, and by sameness from every state: each move undoes nothing but itself."""
    states = numbering(name)
    assert len(states) == ORDERS[name] and sorted(states.values()) == list(range(ORDERS[name]))
    for move in GROUPS[name].moves.values():
        assert {move.apply(state) for state in states} == set(states)


def test_a5_is_even() -> None:
    """Guards A5: its rows are even permutations, so nothing of S5 beyond them."""

    def inversions(state: tuple[int, ...]) -> int:
        return sum(a > b for i, a in enumerate(state) for b in state[i:])

    assert all(inversions(state) % 2 == 0 for state in numbering("a5"))


def test_moves_act_from_left_to_right() -> None:
    """Guards the order of multiplication, on words worked out by hand."""
    write = GROUPS["s5"].write
    assert [write(state) for state in GROUPS["s5"].run("ABBA")] == ["21345", "13452", "34521", "43521"]
    assert GROUPS["a5"].write(GROUPS["a5"].run("AB")[-1]) == "31452"
    assert GROUPS["c60"].run("B" * 9)[-1] == (3,)
    assert GROUPS["parity"].run("BAB")[-1] == (0,)


@pytest.mark.parametrize("renderer", ["chat", "tiny"])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("stride", [1, 4, 16])
def test_right_words_are_right(group: str, stride: int, renderer: str) -> None:
    """Guards answers and graders for every number of serial steps; other results are wrong."""
    template = "fixed" if renderer == "tiny" else "own-2"
    task = words(group=group, stride=stride, renderer=renderer, template=template)
    end = " <eos> <eos>" if renderer == "tiny" else "\n"
    for sample in task.instances():
        score = task.score(sample, task.answer(sample) + end)
        assert score.correct and score.strict and score.measures["state_accuracy"] == 1
        assert len(sample.instance.states) == 16 // stride
    results = {task.answer(sample).split()[-1] for sample in task.instances()}
    assert len(results) > 1 and not task.score(sample, "").correct


def test_states_are_graded_one_by_one() -> None:
    """Guards the measures: a right result with a wrong state on the way, and the other way round."""
    task = words(stride=4)
    sample = task.instances()[0]
    *way, result = task.answer(sample).split("\n")
    wrong = "12345" if result != "12345" else "21345"
    score = task.score(sample, "\n".join([wrong.replace("1", "5", 1), *way[1:], result]))
    assert score.correct and not score.strict
    score = task.score(sample, "\n".join([*way, wrong]))
    assert (score.correct, score.measures["state_accuracy"], score.detail) == (False, 0.75, "wrong state")


def test_tiny_words_fit_the_symbols() -> None:
    """Guards the layout of the embedded models: every symbol is known, prompts are equally long."""
    for group, stride in product(GROUPS, (1, 2, 4, 8, 16)):
        task = words(group=group, stride=stride, renderer="tiny", template="fixed")
        lengths = {len(SymbolTokenizer().encode(sample.prompt)) for sample in task.instances()}
        assert lengths == {22}
        width = 2 if group == "s5" else 1
        assert task.max_target_tokens(SymbolTokenizer()) == 16 // stride * width + 1


@pytest.mark.parametrize("nodes", [10, 26])
def test_verdicts_hold_and_show_in_no_count(nodes: int) -> None:
    """Guards the graphs: verdicts agree with a search of their own, and no degree or edge count predicts them."""
    verdicts: Counter[bool] = Counter()
    for sample in graphs(nodes=nodes).instances():
        graph = sample.instance
        reached = {graph.start}
        for _ in range(nodes):
            reached |= {other for one, other in graph.edges if one in reached}
        assert (graph.goal in reached) is graph.reachable
        assert len(graph.edges) == len(set(graph.edges)) == 2 * (len(graph.path) - 1) + nodes
        assert sum(one == graph.start for one, _ in graph.edges) == 1
        assert sum(other == graph.goal for _, other in graph.edges) == 1
        assert all(one != other for one, other in graph.edges)
        if graph.reachable:
            assert graph.path[0] == graph.start and graph.path[-1] == graph.goal
            assert set(pairwise(graph.path)) <= set(graph.edges)
        verdicts[graph.reachable] += 1
    assert 70 < verdicts[True] < 130


def test_search_takes_earlier_edges_first() -> None:
    """Guards the notes, on a graph worked out by hand."""
    edges = [("b", "d"), ("a", "c"), ("a", "b"), ("c", "d"), ("d", "a"), ("e", "f")]
    assert breadth_first(edges, "a") == ("a", "c", "b", "d")


@pytest.mark.parametrize("renderer", ["chat", "tiny"])
@pytest.mark.parametrize("notes", ["none", "path", "bfs"])
def test_right_verdicts_are_right(notes: str, renderer: str) -> None:
    """Guards answers and graders: the other verdict is wrong, other notes cost the strict verdict."""
    template = "fixed" if renderer == "tiny" else "own-1"
    task = graphs(notes=notes, renderer=renderer, template=template, samples=40)
    for sample in task.instances():
        right = task.answer(sample)
        score = task.score(sample, right)
        assert score.correct and score.strict
        assert not task.score(sample, right[:-1] + ("N" if sample.instance.reachable else "Y")).correct
        assert task.score(sample, "q " + right).strict is False
    assert task.score(sample, "Y").detail == "no verdict found"


def test_tiny_graphs_fit_the_symbols() -> None:
    """Guards the layout: the two nodes of the question stand at the same place in every prompt."""
    task = graphs(renderer="tiny", template="fixed", notes="bfs", samples=50)
    assert {len(SymbolTokenizer().encode(sample.prompt)) for sample in task.instances()} == {5 + 2 * (8 + 12) + 4}
    assert task.max_target_tokens(SymbolTokenizer()) <= 12 + 3


@pytest.mark.parametrize("make", [words, graphs])
def test_samples_are_stable_and_splits_apart(make) -> None:
    """Guards subsets and training sets: sample i is the same in every run, and no split shares a prompt."""
    few, many = make(samples=5).instances(), make(samples=50).instances()
    assert [s.prompt for s in few] == [s.prompt for s in many[:5]]
    prompts = {split: {str(s.prompt) for s in make(split=split, samples=50).instances()} for split in ("train", "test")}
    assert not prompts["train"] & prompts["test"]
    assert make(template="own-1").instances()[0].prompt != make(template="own-2").instances()[0].prompt


@pytest.mark.parametrize(
    ("make", "setting", "message"),
    [
        (words, {"group": "s4"}, r"task.group=s4: must be one of s5, a5, s3, c60, parity"),
        (words, {"stride": 3}, r"task.stride=3: must divide task.length=16; 1, 2, 4, 8, 16 do"),
        (words, {"stride": 0}, r"task.stride=0: must be at least 1"),
        (words, {"length": 4}, r"task.length=4: must be at least 8"),
        (words, {"length": 32, "renderer": "tiny", "template": "fixed"}, r"task.length=32: must be at most 16"),
        (words, {"renderer": "tiny"}, r"task.template=own-1: must be one of fixed"),
        (graphs, {"notes": "dfs"}, r"task.notes=dfs: must be one of none, path, bfs"),
        (graphs, {"nodes": 9}, r"task.nodes=9: must be from 10 .* to 26"),
        (graphs, {"longest_path": 1}, r"task.longest_path=1: must be at least 2"),
        (graphs, {"samples": 0}, r"task.samples=0: must be at least 1"),
    ],
)
def test_unusable_settings_name_key_and_value(make, setting: dict[str, object], message: str) -> None:
    """Guards against a setting that is found out only in the middle of a run."""
    with pytest.raises(ConfigError, match=message):
        make(**setting)


def test_configs_make_tasks_that_embedded_models_refuse() -> None:
    """Guards the files of the group task, and against models of the list tasks run on what they never saw."""
    assert build_task(compose(["task=fsm_word", "task.stride=4"])).name == "fsm_word_s5_n16_k4"
    assert build_task(compose(["task=graph_reach", "task.notes=bfs"])).name == "graph_reach_n12_bfs"
    tiny = ["task.renderer=tiny", "task.template=fixed"]
    with pytest.raises(ConfigError, match=r"task=fsm_word_s5.*model=tiny_mdm was trained on list tasks"):
        compatibility.check(compose(["task=fsm_word", *tiny, "gen_length=32"]))
