"""Data of tasks: what is shipped is whole, and every unusable file is named with row and reason."""

import gzip
import json
import os
from pathlib import Path

import pytest

import tasks.code
import tasks.math
import tasks.puzzles
from harness.config.build import build_task
from harness.config.composition import compose
from harness.errors import ConfigError, DataError, MissingDependency
from tasks import rows

FOLDERS = [Path(module.__file__).parent / "data" for module in (tasks.code, tasks.math, tasks.puzzles)]
MATH = FOLDERS[1]
SHIPPED = [(folder, name) for folder in FOLDERS for name in json.loads((folder / rows.SOURCES).read_text())]
FIELDS = {"question": str, "answer": str}
GOOD = '{"question": "1 + 1?", "answer": "#### 2"}\n'


@pytest.mark.parametrize(("folder", "name"), SHIPPED, ids=[name for _, name in SHIPPED])
def test_shipped_files_are_whole_and_licensed(folder: Path, name: str) -> None:
    """Guards against a changed or half-written data file, and against one without the text of its licence."""
    source = json.loads((folder / rows.SOURCES).read_text())[name]
    assert len(rows.shipped(folder, name)) == source["rows"]
    assert source["origin"] and (folder / source["licence_text"]).stat().st_size > 1000


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_every_data_file_is_on_record(folder: Path) -> None:
    """Guards against data whose origin nobody knows."""
    recorded = json.loads((folder / rows.SOURCES).read_text())
    assert {path.name for path in folder.glob("*.gz")} == set(recorded)


def copy_of_test_set(folder: Path, content: bytes) -> None:
    name = "gsm8k_test.jsonl.gz"
    sources = json.loads((MATH / rows.SOURCES).read_text())
    (folder / rows.SOURCES).write_text(json.dumps({name: sources[name]}))
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:-1000], r"gsm8k_test.jsonl.gz: cannot be read .*; install decbench again"),
        (lambda whole: b"not gzip", r"gsm8k_test.jsonl.gz: cannot be read"),
        (lambda whole: gzip.compress(b"".join(gzip.decompress(whole).splitlines(True)[:-1])), r"1318 rows instead of"),
        (lambda whole: gzip.compress(gzip.decompress(whole).replace(b"Janet", b"Jenny", 1)), r"sha256 .* instead of"),
        (lambda whole: gzip.compress(gzip.decompress(whole)[:500]), r"gsm8k_test.jsonl.gz, row 2: not JSON"),
    ],
    ids=["truncated", "not gzip", "short", "changed", "cut in a row"],
)
def test_damaged_package_data_is_refused(tmp_path: Path, damage, message: str) -> None:
    """Guards against measuring on fewer or other problems than the name of the set promises."""
    copy_of_test_set(tmp_path, damage((MATH / "gsm8k_test.jsonl.gz").read_bytes()))
    with pytest.raises(DataError, match=message):
        rows.shipped(tmp_path, "gsm8k_test.jsonl.gz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no rows; write one object per line with the fields question, answer"),
        (GOOD.encode() + b'{"question": "cut o', "row 2: not JSON"),
        (GOOD.encode() + b"[1]\n", "row 2: list instead of an object"),
        (GOOD.encode() + b'{"question": "?"}\n', "row 2: field 'answer' is missing"),
        (GOOD.encode() + b'{"question": "?", "answer": 7}\n', "row 2: field 'answer': 7 must be of type str"),
        (GOOD.encode() + b"\xff\n", "row 2: not UTF-8"),
    ],
)
def test_broken_rows_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    """Guards against a row that is skipped, or a traceback that does not say where it stands."""
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"mine.jsonl.*{message}"):
        rows.from_file(path, FIELDS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Guards against an absent file taken for an empty set."""
    with pytest.raises(DataError, match=r"absent.jsonl: cannot be read"):
        rows.from_file(tmp_path / "absent.jsonl", FIELDS)


def test_compressed_files_are_read(tmp_path: Path) -> None:
    """Guards against reading compressed bytes as text."""
    (tmp_path / "mine.jsonl.gz").write_bytes(gzip.compress(GOOD.encode()))
    assert rows.from_file(tmp_path / "mine.jsonl.gz", FIELDS) == (json.loads(GOOD),)


def test_smaller_subsets_lie_in_larger_ones() -> None:
    """Guards comparisons across sample sizes: 50 problems that are not among the 200 are another test."""
    ids = [f"problem-{i}" for i in range(300)]
    few, many = (set(rows.by_digest(ids, count)) for count in (50, 200))
    assert len(few) == 50 and few < many and sorted(few) != list(range(50))


def test_the_hub_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the message: an import error that does not say what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match=r"pip install 'decbench\[hub\]'"):
        rows.from_hub("openai/gsm8k", "main", "test", FIELDS)


def test_an_empty_hub_cache_is_named_without_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a download attempt, and against an error that does not say how to fill the cache."""
    datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(DataError, match=r"openai/gsm8k, split test: not in the cache .*hf download --repo-type"):
        rows.from_hub("openai/gsm8k", "main", "test", FIELDS)
    assert before == datasets.config.HF_HUB_OFFLINE and not os.listdir(tmp_path)


def test_a_filled_hub_cache_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the offline path: what lies in the cache is used without asking the hub."""
    datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
    folder = tmp_path / "openai___gsm8k" / "main" / "0.0.0" / "0123456789abcdef0123456789abcdef01234567"
    folder.mkdir(parents=True)
    table = datasets.Dataset.from_list([json.loads(GOOD)] * 3)
    with datasets.arrow_writer.ArrowWriter(features=table.features, path=str(folder / "gsm8k-test.arrow")) as writer:
        writer.write_table(table.data.table)
        writer.finalize()
    split = datasets.SplitInfo(name="test", num_bytes=1, num_examples=3, dataset_name="gsm8k")
    info = datasets.DatasetInfo(features=table.features, builder_name="parquet", config_name="main")
    info.splits = datasets.SplitDict({"test": split}, dataset_name="gsm8k")
    info.write_to_directory(str(folder))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    assert rows.from_hub("openai/gsm8k", "main", "test", FIELDS) == (json.loads(GOOD),) * 3


def test_a_saved_data_set_is_read_and_a_damaged_one_named(tmp_path: Path) -> None:
    """Guards the second form of a path: the split of the task is taken, and a torn file is no traceback."""
    datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
    row = json.loads(GOOD)
    parts = {name: datasets.Dataset.from_list([row] * count) for name, count in (("test", 2), ("train", 3))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    assert rows.from_folder(tmp_path / "saved", "test", FIELDS) == (row,) * 2
    with pytest.raises(DataError, match=r"saved, split test, row 1: field 'level' is missing"):
        rows.from_folder(tmp_path / "saved", "test", {**FIELDS, "level": str})
    (file,) = (tmp_path / "saved" / "test").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"saved, split test: cannot be read .*save_to_disk"):
        rows.from_folder(tmp_path / "saved", "test", FIELDS)


def test_only_a_flag_opens_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the offline promise and its exception: connections while a download was asked for, only then."""
    datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
    seen = []

    def load(*_: object, **__: object) -> list[dict[str, object]]:
        seen.append(datasets.config.HF_HUB_OFFLINE)
        return [json.loads(GOOD)]

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    for download in (False, True):
        assert len(rows.from_hub("openai/gsm8k", "main", "test", FIELDS, download=download)) == 1
    assert seen == [True, False]
    with pytest.raises(ConfigError, match=r"^task.download=True: .*task.data=hub"):
        build_task(compose(["task=gsm8k", "task.download=true"]))


def test_what_a_download_left_in_the_cache_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the command that the error names: it leaves files that the library itself finds only when online."""
    datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
    folder = tmp_path / "datasets--openai--gsm8k" / "snapshots" / ("b" * 40)
    (folder / "main").mkdir(parents=True)
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs" / "main").write_text(folder.name)
    datasets.Dataset.from_list([json.loads(GOOD)] * 2).to_parquet(str(folder / "main" / "test-0.parquet"))
    configs = "configs:\n- config_name: main\n  data_files:\n  - split: test\n    path: main/test-*\n"
    (folder / "README.md").write_text(f"---\n{configs}---\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")
    assert rows.from_hub("openai/gsm8k", "main", "test", FIELDS) == (json.loads(GOOD),) * 2
