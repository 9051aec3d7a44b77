"""Films of samples, told from rows by hand."""

from typing import Any

from harness.results.html.films import film, spelled_words
from harness.results.schemas import STEPS

SAMPLE = {"sample_id": "s", "output_ids": [7, 8, 9], "decided_at": [0, 2, 1], "correct": True, "nfe": 2}


def step(number: int, **values: Any) -> dict[str, Any]:
    known = {"step": number, "window": [0, 3], "remasked": [], "edited": [], "positions": [], "tokens": []}
    return dict.fromkeys(STEPS.names) | known | values


def test_a_film_holds_what_changed():
    """Guards the viewer: commits with how sure they were, what was taken back, and what caches answered for."""
    made = film(SAMPLE, [
        step(0, positions=[0, 2], tokens=[7, 9], scores=[0.5, 0.994], n_computed=6, n_reused=0, cached=[]),
        step(1, remasked=[2], n_computed=2, n_reused=1, cached=[0]),
        step(2, positions=[1, 2], tokens=[8, 9], entropy=[0.0, 0.0]),
    ])  # fmt: skip
    assert made is not None
    assert (made["sample"], made["traced"], made["again"], made["length"], made["nfe"]) == ("s", True, False, 3, 2)
    first, second, third = made["frames"]
    assert (first["set"], first["clear"], first["marks"]) == ([[0, 7], [2, 9]], [], {"+": [0, 2]})
    assert (first["sure"], first["cached"]) == ([[0, 50], [2, 99]], [])
    assert (second["set"], second["clear"], second["marks"], second["cached"]) == ([], [2], {"-": [2]}, [0])
    assert (third["set"], third["sure"], third["computed"], third["cached"]) == (
        [[1, 8], [2, 9]], [[1, 100], [2, 100]], None, None)  # fmt: skip


def test_drafts_are_marked_by_what_became_of_them():
    """Guards draft-verify: of three drafts one is accepted, the second's place has the model's own token."""
    made = film(SAMPLE, [step(0, positions=[0, 1], tokens=[7, 8], drafted=[0, 1, 2], n_accepted=1)])
    assert made is not None
    assert made["frames"][0]["marks"] == {"=": [0], "+": [1], "!": [2]}


def test_a_run_without_steps_has_the_order_of_its_commits():
    """Guards runs that were not traced, and those of which nothing is known."""
    made = film(SAMPLE, [])
    assert made is not None and not made["traced"]
    assert [frame["set"] for frame in made["frames"]] == [[[0, 7]], [[2, 9]], [[1, 8]]]
    assert film(SAMPLE | {"decided_at": None}, []) is None


def test_the_tokens_of_films_are_spelled_once():
    """Guards the words that the viewer writes."""
    made = film(SAMPLE, [])
    assert spelled_words([made, made], lambda token: f"<{token}>") == {"7": "<7>", "8": "<8>", "9": "<9>"}  # type: ignore[list-item]
