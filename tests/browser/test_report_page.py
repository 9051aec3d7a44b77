"""The page of results in a real browser: opened, sorted, filtered, played, compared, by mouse and by keyboard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.results.figures.scatter import TheoryPoint
from harness.results.html.page import Shown, page
from harness.results.store import Store
from tests.browser.page_in_browser import Opened, browser, require_browser
from tests.results.factory import add_run, add_sweep
from tests.results.figures.traced import traced_store

require_browser()
for package in ("jinja2", "plotly", "itables"):
    pytest.importorskip(package)

HOSTILE = "<img src=x onerror=alert(1)>"
# The store holds traced runs, too: names say how runs were measured.
FAST, BASE = "fast step=4 measure=timed", "llada measure=timed"


THEORY = [
    TheoryPoint(task="sort", kind="ideal", nfe=1, accuracy=0.25),
    TheoryPoint(task="sort", kind="ideal", nfe=4, accuracy=1),
    TheoryPoint(task="sort", kind="fewest", nfe=2, accuracy=1),
]


def asked(run: Any, samples: Any) -> dict[str, list[tuple[str, str]]]:
    """Ask the drafting run nothing that is known, and all others the same."""
    known = [] if run["method"] == "drafts" else samples
    return {row["sample_id"]: [("user", f"{HOSTILE}\nsort {row['sample_id']}")] for row in known}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one page of a sweep, of traced runs, and of names that are markup."""
    folder = tmp_path_factory.mktemp("page")
    store = Store(root=folder / "store")
    add_sweep(store)
    traced_store(folder / "store")
    add_run(store, "hostile", setting=HOSTILE, method="hostile", nfe=[2, 2])
    made = page(store, {}, lambda config: lambda token: f"<b>{token}", Shown(asked=asked, theory=lambda runs: THEORY))
    (folder / "report.html").write_text(made.html, encoding="utf-8")
    return folder / "report.html"


@pytest.fixture(scope="module")
def shared(file: Path) -> Iterator[Opened]:
    """Open the page once for all tests."""
    with browser() as started:
        yield Opened(started.new_page(), file)


@pytest.fixture
def opened(shared: Opened) -> Iterator[Opened]:
    """Give the page to a test, which fails if anything in it went wrong."""
    shared.page.set_viewport_size({"width": 1280, "height": 900})
    yield shared
    found = shared.wrong[:]
    shared.wrong.clear()
    assert found == []


def column(page: Any, table: str, title: str) -> list[str]:
    """Return what stands in a column of a table, from top to bottom."""
    heads = [head.strip() for head in page.locator(f"#{table} thead th").all_inner_texts()]
    at = heads.index(title)
    return [cell.strip() for cell in page.locator(f"#{table} tbody tr td:nth-child({at + 1})").all_inner_texts()]


def test_the_leaderboard_is_sorted_by_a_click(opened: Opened):
    """Guards sorting: by accuracy at first, by calls when asked, numbers as numbers."""
    page = opened.go()
    accuracies = [float(cell.split()[0]) for cell in column(page, "board-table", "accuracy %")]
    assert accuracies == sorted(accuracies, reverse=True)
    page.locator("#board-table thead th", has_text="efe").first.click()
    page.locator("#board-table thead th[aria-sort]", has_text="efe").wait_for()
    work = [float(cell) for cell in column(page, "board-table", "efe")]
    assert len(work) > 3 and work == sorted(work)


def test_the_leaderboard_is_filtered_and_the_address_says_how(opened: Opened):
    """Guards filters, together, and links to them."""
    page = opened.go()
    page.select_option("#board-controls [name=task]", "sort")
    page.select_option("#board-controls [name=model]", "tiny")
    assert sorted(column(page, "board-table", "setting")) == [FAST, BASE]
    page.locator("#board .dt-search input").fill("fast")
    assert column(page, "board-table", "setting") == [FAST]
    assert "task=sort" in page.url and "model=tiny" in page.url
    again = page.url.partition(".html")[2]
    page.select_option("#board-controls [name=model]", "causal")
    assert sorted(column(opened.go(again), "board-table", "setting")) == [FAST, BASE]


def test_what_is_significant_is_told(opened: Opened):
    """Guards verdicts beside their p-values, and the baseline's own."""
    page = opened.go("#board?task=sort&model=tiny")
    found = dict(
        zip(column(page, "board-table", "setting"), column(page, "board-table", "against baseline"), strict=True)
    )
    assert found == {BASE: "baseline", FAST: "open p 0.500"}


def test_names_are_never_markup(opened: Opened):
    """Guards readers: a setting that is markup is shown as it stands, everywhere."""
    page = opened.go("#board?task=copy&model=tiny")
    assert f"{HOSTILE} measure=timed" in column(page, "board-table", "setting")
    page.get_by_role("link", name=HOSTILE).first.click()
    page.wait_for_selector("html[data-shown^='#run?'] #run:not([hidden])")
    assert HOSTILE in page.locator("#run-title").inner_text()
    assert page.locator("img").count() == 0


def test_points_are_drawn_and_tell_their_setting(opened: Opened):
    """Guards plots: a marker per setting of the model, and its numbers below the pointer."""
    page = opened.go("#plots?task=sort&model=tiny&cost=efe")
    page.wait_for_selector("#plots-figure .point")
    points = page.locator("#plots-figure .scatterlayer .point")
    assert points.count() == 2
    box = points.first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
    page.wait_for_selector("#plots-figure .hovertext")
    assert "accuracy" in page.locator("#plots-figure .hovertext").first.text_content()


def test_what_theory_says_and_areas_stand_with_the_points(opened: Opened):
    """Guards the dashed line, over calls alone, and the table of areas, which follows task and model."""
    page = opened.go("#plots?task=sort&model=tiny&cost=nfe")
    page.wait_for_selector("#plots-figure .point")
    named = page.locator("#plots-figure .legendtext").all_text_contents()
    assert {"ideal sampler, k per step", "fewest calls without loss"} <= {*named}
    # Two settings, two points of the line and the star.
    assert page.locator("#plots-figure .scatterlayer .point").count() == 5
    found = dict(zip(column(page, "plots-areas", "method"), column(page, "plots-areas", "AUP"), strict=True))
    assert found == {"llada": "100.0", "fast": "200.0"}
    page = opened.go("#plots?task=sort&model=tiny&cost=efe")
    assert page.locator("#plots-figure .scatterlayer .point").count() == 2


def test_the_prompt_stands_above_what_is_played(opened: Opened):
    """Guards what a sample was asked: as text, once for both sides, and that it says so where it cannot be told."""
    page = opened.go("#viewer?a=left&b=two&sample=s1")
    prompt = page.locator("#viewer-prompt pre")
    assert prompt.all_inner_texts() == [f"user\n{HOSTILE}\nsort s1"]
    page.locator("#viewer-prompt summary").click()
    page = opened.go("#viewer?a=left&b=drafts&sample=s0")
    assert page.locator("#viewer-prompt summary").all_inner_texts() == [
        "Prompt of tiny · left", "Prompt of causal · drafts"]  # fmt: skip
    assert not prompt.first.is_visible()
    page.locator("#viewer-prompt summary").last.click()
    assert prompt.last.inner_text().startswith("It cannot be told")


def test_pages_of_tasks_and_runs_follow_from_each_other(opened: Opened):
    """Guards the way from a task to a run, its configuration and provenance, and back in the browser's history."""
    page = opened.go("#tasks")
    page.get_by_role("link", name="sort", exact=True).click()
    page.wait_for_selector("html[data-shown^='#task?'] #task:not([hidden])")
    page.get_by_role("link", name="fast-sort").click()
    page.wait_for_selector("html[data-shown^='#run?'] #run:not([hidden])")
    assert page.locator("#run-title").inner_text() == "tiny · fast step=4 · sort"
    assert column(page, "run-samples", "correct") == ["yes", "no"]
    page.get_by_text("Configuration").click()
    assert page.locator("#run-config").is_visible()
    page.go_back()
    page.wait_for_selector("html[data-shown='#task?name=sort']", state="attached")
    assert page.title() == "Task sort - decbench report"


def test_a_failed_run_says_why(opened: Opened):
    """Guards reasons."""
    page = opened.go("#run?id=bad")
    assert page.locator("#run-error").inner_text() == "logits are NaN in sample s1"
    assert opened.go("#run?id=gone").locator("#run-title").inner_text() == "gone: no such run here"


def test_two_methods_are_played_beside_each_other(opened: Opened):
    """Guards the viewer: steps of both, tokens spelled, marks, certainty, caches, and the end of the shorter one."""
    page = opened.go("#viewer?a=left&b=two&sample=s0&step=1")
    left, right = page.locator(".pane").all()
    assert "step 1 of 4" in left.locator(".told").inner_text()
    assert left.locator(".now .cell").all_inner_texts() == ["+<b>1", "·", "·", "·"]
    assert right.locator(".now .cell").all_inner_texts() == ["+<b>1", "·", "+<b>3", "·"]
    assert "50 % sure" in right.locator(".now .cell").first.get_attribute("title")
    page.get_by_role("button", name="Last").click()
    assert "step 4 of 4" in left.locator(".told").inner_text()
    assert "step 2 of 2" in right.locator(".told").inner_text()
    assert left.locator(".grid tbody tr.here td").all_inner_texts() == ["<b>1", "<b>2", "<b>3", "+<b>0"]


def test_it_plays_to_the_end_and_stops(opened: Opened):
    """Guards playing."""
    page = opened.go("#viewer?a=left&sample=s1")
    page.select_option("#viewer-speed", "100")
    page.get_by_role("button", name="Play").click()
    page.locator("#viewer-now", has_text="4 of 4").wait_for()
    page.get_by_role("button", name="Play").wait_for()
    assert "step=4" in page.url


def test_a_link_is_a_state(opened: Opened):
    """Guards links: sample, both methods and the step; what is not here is the nearest that is."""
    page = opened.go("#viewer?a=two&b=left&sample=s1&step=3")
    assert page.locator("#viewer-controls [name=sample]").input_value() == "s1"
    assert page.locator("#viewer-now").inner_text() == "3 of 4"
    page = opened.go("#viewer?a=gone&sample=gone&step=99")
    assert page.locator("#viewer-now").inner_text().split(" of ")[0] == page.locator("#viewer-step").get_attribute(
        "max"
    )


def test_all_of_it_works_with_the_keyboard_alone(opened: Opened):
    """Guards readers without a mouse: to the viewer by tab, then steps, samples, sides; sorting by enter."""
    page = opened.go("#tasks")
    page.evaluate("() => document.activeElement.blur()")
    page.locator(".skip").focus()
    for _ in range(5):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("html[data-shown^='#viewer'] #viewer:not([hidden])")
    page = opened.go("#viewer?a=left&b=two&sample=s0")
    page.evaluate("() => document.activeElement.blur()")
    now = page.locator("#viewer-now")
    for key, wanted in (("ArrowRight", "1 of 4"), ("End", "4 of 4"), ("ArrowLeft", "3 of 4"), ("Home", "0 of 4")):
        page.keyboard.press(key)
        assert now.inner_text() == wanted
    page.keyboard.press("n")
    page.wait_for_selector("#viewer-panes .pane")
    assert page.locator("#viewer-controls [name=sample]").input_value() == "s1"
    page.keyboard.press("x")
    assert page.locator("#viewer-controls [name=a]").input_value() == "two"
    page.keyboard.press("Space")
    page.get_by_role("button", name="Pause").wait_for()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Play").wait_for()
    page = opened.go("#board?task=sort")
    page.locator("#board-table thead th", has_text="efe").first.locator("[tabindex='0']").first.focus()
    page.keyboard.press("Enter")
    page.locator("#board-table thead th[aria-sort]", has_text="efe").wait_for()
    work = [float(cell) for cell in column(page, "board-table", "efe")]
    assert work == sorted(work)


PLACES = ["#board", "#plots", "#tasks", "#task?name=copy", "#runs", "#run?id=two",
          "#viewer?a=left&b=two&sample=s0&step=2"]  # fmt: skip


@pytest.mark.parametrize("place", [PLACES[0], *(pytest.param(one, marks=pytest.mark.slow) for one in PLACES[1:])])
def test_everybody_can_read_it(opened: Opened, place: str):
    """Guards contrast, names of controls and structure, by axe."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(opened.go(place))
    told = [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found.response["violations"]]
    assert told == []


def test_nothing_sticks_out_of_a_narrow_screen(opened: Opened):
    """Guards the layout of every page of it on a telephone, when plots have found their new width."""
    opened.page.set_viewport_size({"width": 380, "height": 800})
    for place in PLACES:
        page = opened.go(place)
        page.wait_for_function("() => document.documentElement.scrollWidth <= 380")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 380, place
