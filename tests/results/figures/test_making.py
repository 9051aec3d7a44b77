"""Files of a figure say what is in them, and the same data give the same files."""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.errors import ConfigError, DataError, MissingDependency
from harness.results.figures.definition import read_definition
from harness.results.figures.making import make, save
from harness.results.store import Store
from tests.results.factory import add_run, add_sweep

pytest.importorskip("matplotlib")
CALLS = {"name": "calls", "kind": "scatter", "x": "nfe", "y": "accuracy", "summary": "What calls buy."}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(root=tmp_path_factory.mktemp("store"))
    add_sweep(store)
    return store


def test_pictures_hold_caption_and_provenance(store: Store, tmp_path: Path):
    """Guards figures that lost their paper: settings, n, interval and runs are in the metadata; text stays text."""
    from PIL import Image

    made = make(store, read_definition(CALLS, "calls"), {"task": ["sort"]})
    svg, pdf, png, table = save(made, tmp_path / "fig" / "v0.1")
    assert [path.name for path in (svg, pdf, png, table)] == ["v0.1.svg", "v0.1.pdf", "v0.1.png", "v0.1.csv"]
    assert made.caption.startswith("What calls buy. model: causal, tiny; task: sort; protocol: own; gen_length: 4;")
    assert "n = 2 samples per run. Bars: Wilson 95 % intervals of accuracy; a shaded front: its 95 %" in made.caption
    held = Image.open(png).info
    assert held["Description"] == made.caption
    provenance = json.loads(held["Source"])
    assert provenance["runs"] == {f"{name}-sort": f"of_{name}-sort" for name in ("ar", "base", "fast")}
    assert provenance["figure"]["x"] == ["nfe"]
    words = "".join(ElementTree.parse(svg).getroot().itertext())
    assert made.caption in words
    assert json.dumps(provenance, sort_keys=True) in words
    assert "model calls per sample" in words
    assert re.search(rb"/Subject \(What calls buy", pdf.read_bytes())
    assert [row["x"] for row in csv.DictReader(table.open())] == ["3", "4", "1"]


def test_the_same_data_give_the_same_bytes(store: Store, tmp_path: Path):
    """Guards against a date or random ids in committed figures."""
    definition = read_definition(CALLS, "calls")
    first, second = (save(make(store, definition), tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize(
    ("option", "filters", "message"),
    [
        ({}, {"task": ["shuffle"]}, "calls: no run in STORE has status=ok task=shuffle; decbench results list"),
        ({"runs": {"task": "copy"}}, {"task": ["sort"]}, "has status=ok task="),
        (
            {"x": "tps"},
            {},
            "calls: none of its 6 runs has what is drawn (tps, accuracy); steps are stored with measure=",
        ),
        ({"x": "config.method.k"}, {}, "none of its 6 runs has what is drawn"),
        (
            {"kind": "two_axes", "x": "batch_size", "y": ["tps", "nfe"]},
            {},
            "none of its 6 runs has what is drawn (batch_size, tps, nfe)",
        ),
        ({"x": "method"}, {}, "calls: method: ar_greedy: is no number; draw a column of numbers"),
        ({"kind": "radar"}, {}, "kind: radar needs 3 tasks or more, and the runs have copy, sort; use kind: bars"),
    ],
)
def test_what_cannot_be_drawn_is_said(store: Store, option: dict[str, Any], filters: dict[str, Any], message: str):
    """Guards against empty pictures and tracebacks."""
    option = {"name": "calls", "kind": "radar"} if option == {"kind": "radar"} else CALLS | option
    with pytest.raises(ConfigError) as refusal:
        make(store, read_definition(option, "calls"), filters)
    assert message.replace("STORE", str(store.root)) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["progress", "convergence", "per_call", "order_map"])
def test_kinds_that_need_more_than_is_stored_say_what(store: Store, kind: str):
    """Guards runs that were not traced."""
    with pytest.raises(ConfigError, match=f"none of its 6 runs has what is drawn .{kind}.; steps are stored with"):
        make(store, read_definition({"kind": kind}, "f"))


@pytest.mark.parametrize(
    ("column", "values", "x"),
    [("protocol", (None, "d1"), "nfe"), ("device", ("cpu", "gpu"), "latency_s")],
)
def test_what_does_not_compare_is_not_mixed(tmp_path: Path, column: str, values: tuple[Any, ...], x: str):
    """Guards against prompts of two papers, and seconds of two machines, in one figure; panels keep them apart."""
    store = Store(root=tmp_path)
    for at, value in enumerate(values):
        add_run(store, f"r{at}", **{column: value})
    with pytest.raises(ConfigError, match=f"several values of {column}, .*, which no figure mixes; choose one"):
        make(store, read_definition(CALLS | {"x": x}, "calls"))
    assert len(make(store, read_definition(CALLS | {"x": x, "panels": column}, "calls")).data) == 2


def test_calls_of_two_machines_do_mix(tmp_path: Path):
    """Guards against a refusal of what compares: counts are the same everywhere."""
    store = Store(root=tmp_path)
    add_run(store, "a", device="cpu")
    add_run(store, "b", device="gpu", setting="llada steps=1")
    assert len(make(store, read_definition(CALLS, "calls")).data) == 2


def test_a_folder_that_cannot_be_written_is_named(store: Store, tmp_path: Path):
    """Guards against a traceback after the work is done."""
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: cannot be written"):
        save(make(store, read_definition(CALLS, "calls")), tmp_path / "file" / "calls")


def test_without_matplotlib_the_way_to_it_is_said(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Guards the optional package."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"pip install 'decbench\[figures\]'"):
        make(store, read_definition(CALLS, "calls"))
