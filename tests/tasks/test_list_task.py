"""The task as the runner sees it: texts in, scores out, and one clear line for every unusable setting or row."""

from pathlib import Path

import pytest

from harness.errors import ConfigError, DataError
from harness.models.tokenizer import SymbolTokenizer
from tasks.lists import ListTask
from tasks.lists.operations import OPERATIONS
from tasks.lists.prompts import PROMPTS


def tiny(**settings: object) -> ListTask:
    return ListTask(**{"name": "t", "operation": "copy", "lengths": [3, 4], "samples": 6} | settings)


def chat(**settings: object) -> ListTask:
    words = {"renderer": "chat", "template": "own-1", "alphabet": "names", "examples": 1}
    return tiny(**words | settings)


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("template", PROMPTS)
def test_chat_prompts_say_everything(op: str, template: str) -> None:
    """A wording that forgets the list, the word, the place or the count, or shows the problem as its own example."""
    for sample in chat(operation=op, template=template).instances():
        example, answer, question = sample.prompt
        asked = sample.instance
        assert [turn["role"] for turn in sample.prompt] == ["user", "assistant", "user"]
        assert all(f'"{item}"' in question["content"] for item in asked.items)
        for given in (asked.word, asked.index, asked.count):
            assert given is None or str(given) in question["content"]
        assert answer["content"].startswith('["') and example["content"] != question["content"]


def test_a_task_names_the_wordings_of_its_renderer() -> None:
    """Guards those who ask every wording there is."""
    assert chat().templates == tuple(PROMPTS) and tiny().templates == ("fixed",)


@pytest.mark.parametrize("template", PROMPTS)
def test_templates_differ(template: str) -> None:
    """Two names for one wording, so that the spread over templates would be nought."""
    others = [PROMPTS[name] for name in PROMPTS if name != template]
    assert others and all(PROMPTS[template][op] != other[op] for other in others for op in OPERATIONS)


def test_scores_of_chat_answers() -> None:
    """The lenient reading judged by the strict rules, or a reason beside a right answer."""
    task = chat()
    sample = task.instances()[0]
    right = ", ".join(f'"{item}"' for item in sample.instance.items)
    strictly = task.score(sample, f"[{right}]")
    assert (strictly.correct, strictly.strict, strictly.detail) == (True, True, "")
    loosely = task.score(sample, right)
    assert (loosely.correct, loosely.strict) == (True, False)
    assert task.score(sample, "").detail == "not a valid answer"


def test_scores_of_symbols() -> None:
    """An unreadable canvas that raises instead of being wrong."""
    task = tiny()
    sample = task.instances()[0]
    assert task.score(sample, " ".join(sample.instance.items) + " <eos> <eos>").correct
    assert not task.score(sample, "<eos>").correct
    assert task.score(sample, "<mask> <eos>").detail == "not a list of items"


@pytest.mark.parametrize(
    ("op", "tokens"), [("copy", 5), ("insert_random", 6), ("remove_random", 4), ("shuffle", 5), ("repeat_list", 11)]
)
def test_longest_target_counts_the_end(op: str, tokens: int) -> None:
    """A canvas that is just too short for the longest answer and its end."""
    lengths = [3, 5] if op == "repeat_list" else [3, 4]
    assert tiny(operation=op, lengths=lengths).max_target_tokens(SymbolTokenizer()) == tokens


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"operation": "copyy"}, r"task.operation=copyy: .*did you mean copy\?"),
        ({"samples": 0}, r"task.samples=0: must be at least 1"),
        ({"lengths": [3, 11]}, r"task.lengths=\[3, 11\]: .*from 3 to 10"),
        ({"lengths": []}, r"task.lengths=\[\]"),
        ({"operation": "repeat_each", "lengths": [6]}, r"task.lengths=\[6\]: .*from 3 to 5 for repeat_each"),
        ({"max_items": 16}, r"task.max_items=16: must be from 3 to 15"),
        ({"split": "dev"}, r"task.split=dev: must be one of train, validation, test"),
        ({"template": "own-1"}, r"task.template=own-1: must be one of fixed"),
        ({"alphabet": "names"}, r"task.alphabet=names: .*renderer=chat"),
        ({"examples": 1}, r"task.examples=1"),
        ({"parity": "waiting_line"}, r"task.parity=waiting_line: needs renderer=chat"),
    ],
)
def test_unusable_settings_name_key_and_value(setting: dict[str, object], message: str) -> None:
    """A setting that is found out only in the middle of a run, or without saying what would do."""
    with pytest.raises(ConfigError, match=message):
        tiny(**setting)


def test_published_sets_have_no_repetition() -> None:
    """An operation that a set lacks ending in a KeyError."""
    with pytest.raises(ConfigError, match=r"task.operation=repeat_each: must be one of copy"):
        chat(operation="repeat_each", parity="waiting_line")


def test_published_set_keeps_its_own_examples() -> None:
    """Worked examples of our own in a set that is compared with published numbers."""
    task = chat(parity="waiting_line", lengths=[4], max_items=15)
    samples = task.instances()
    assert [sample.id for sample in samples] == [f"waiting_line/copy/{i}" for i in range(25, 31)]
    assert {len(sample.prompt) for sample in samples} == {3}


def test_rows_of_a_file_are_asked(tmp_path: Path) -> None:
    """Rows that lose their word, index or id on the way."""
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '{"items": ["A", "B", "C"], "word": "Z", "index": 3, "id": "first"}\n'
        '{"items": ["c", "b", "a", "d"], "word": "Z", "index": 0}\n'
    )
    samples = tiny(operation="insert_index", data=str(path)).instances()
    assert [sample.id for sample in samples] == ["first", "mine-2"]
    assert samples[0].prompt == "<bos> insert_index #3 Z <arg> A B C <pad> <pad> <pad> <pad> <pad> <pad> <pad> <sep>"
    assert samples[0].instance.accepts(("A", "B", "C", "Z"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"items": ["A", "B", "C"]', "not JSON"),
        ("[1, 2]", "instead of an object"),
        ("{}", "field 'items' is missing"),
        ('{"items": "ABC"}', "field 'items': 'ABC' must be of type list"),
        ('{"items": ["A", "B", 3]}', "field 'items' or 'word': 3"),
        ('{"items": ["A", "B", "B"]}', "field 'items'.*all different"),
        ('{"items": ["A", "B", "C"], "wrod": "D"}', "field 'wrod' is unknown"),
        ('{"items": ["A", "B", "C"], "word": "D"}', "field 'word'.*takes no word"),
        ('{"items": ["A", "B", "C", "D", "E"]}', r"task.lengths=\[3, 4\]; add the length"),
        ('{"items": ["A", "B", "cat"]}', "use task.renderer=chat"),
        ('{"items": ["A", "B", "C"], "id": "good"}', "field 'id'.*earlier row"),
    ],
)
def test_broken_rows_name_file_row_and_field(tmp_path: Path, row: str, message: str) -> None:
    """A broken row that is skipped, or ends in a traceback that does not say where it stands."""
    path = tmp_path / "mine.jsonl"
    path.write_text('{"items": ["A", "B", "C"], "id": "good"}\n' + row + "\n")
    with pytest.raises(DataError, match=rf"{path}, row 2: .*{message}"):
        tiny(data=str(path)).instances()


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    """A file that cannot be read taken for a task without problems."""
    with pytest.raises(DataError, match=r"absent.jsonl: cannot be read"):
        tiny(data=str(tmp_path / "absent.jsonl")).instances()
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match=r"empty.jsonl: no rows"):
        tiny(data=str(tmp_path / "empty.jsonl")).instances()
