"""A figure that shows its runs is left as it is."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.results.figures import drawn
from harness.results.figures.definition import Definition, read_definition
from harness.results.figures.making import draw, files_of, save
from harness.results.figures.scatter import TheoryPoint
from harness.results.figures.selected import Selected, select
from harness.results.requests import new_sweep, write_requests
from harness.results.store import Store
from tests.results.factory import add_run, add_sweep

CALLS = read_definition({"name": "calls", "kind": "scatter", "x": "nfe", "y": "accuracy", "runs": {"n": [2, 4]}}, "f")


@pytest.fixture
def selected(tmp_path: Path) -> Selected:
    store = Store(root=tmp_path / "raw")
    add_sweep(store)
    return select(store, CALLS)


def test_panels_stand_as_their_sweep_asked_for_them(tmp_path: Path) -> None:
    """Guards a figure against another order of panels and colours whenever jobs that run beside each other end."""
    store, created = Store(root=tmp_path / "raw"), datetime(2025, 1, 1, tzinfo=UTC)
    for minutes, task in enumerate(("sort", "alone", "copy")):
        add_run(store, task, task=task, minutes=minutes)
    answered = {"name": "v0.1", "attempt": 1, "status": "ok", "resumed": False, "decodings": 2, "created": created}
    asked = [{**answered, "setting_id": f"of_{task}", "run_id": task, "label": task} for task in ("copy", "sort")]
    write_requests(store, new_sweep(), asked)
    definition = read_definition({"name": "calls", "kind": "scatter", "x": "nfe", "y": "accuracy"}, "f")
    assert select(store, definition).ids == ["alone", "copy", "sort"]


def test_a_figure_stays_while_its_files_are_what_was_drawn(selected: Selected, tmp_path: Path) -> None:
    """Guards the seconds of drawing, and pictures that were changed, cut short or lost against staying so."""
    pytest.importorskip("matplotlib")
    path, origin = tmp_path / "figures" / "v0.1", drawn.origin_of(selected, ())
    assert drawn.current(path, origin) == []
    written = save(draw(selected, ()), path)
    drawn.note(path, origin, written)
    assert drawn.current(path, origin) == written == files_of(path)
    for file in written:
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        assert drawn.current(path, origin) == [], file
        file.unlink()
        assert drawn.current(path, origin) == [], file
        file.write_bytes(whole)
    assert drawn.current(path, origin) == written


def test_whatever_is_drawn_otherwise_has_another_origin(selected: Selected, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a figure against staying when runs, their attempts, its definition, theory or a library are others."""
    known = {drawn.origin_of(selected, ())}
    assert drawn.origin_of(select(selected.store, CALLS), ()) in known

    def differs(theory: tuple[TheoryPoint, ...] = (), definition: Definition = CALLS) -> bool:
        origin, before = drawn.origin_of(select(selected.store, definition), theory), len(known)
        known.add(origin)
        return len(known) > before

    assert differs(definition=read_definition({"kind": "scatter", "x": "nfe", "y": "accuracy", "log": "x"}, "f"))
    add_run(selected.store, "another", setting="llada steps=3")
    assert differs()
    add_run(selected.store, "another", setting="llada steps=3")
    assert differs()
    monkeypatch.setattr(drawn, "version", lambda package: f"{package} 99")
    assert differs()
