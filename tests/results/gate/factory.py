"""Settings with numbers small enough to check by hand."""

from dataclasses import replace

from harness.results.gate.observed import Answer, Setting, Step

STEPS = (
    Step(at=(1,), tokens=(7,), computed=6, margin=0.5),
    Step(at=(0,), tokens=(5,), computed=6, margin=0.3),
)


def answer(name: str = "s0", **values: object) -> Answer:
    """Return an answer of two tokens in two steps, `values` replacing its fields."""
    made = Answer(
        sample=name,
        repetition=0,
        prompt="p",
        tokens=(5, 7),
        decided_at=(1, 0),
        correct=True,
        counters={"nfe": 2, "query_tokens": 12},
        margin=0.3,
        drawn=False,
        steps=STEPS,
    )
    return replace(made, **values)  # type: ignore[arg-type]


def setting(name: str = "a", *answers: Answer, **values: object) -> Setting:
    """Return a setting of `llada`, with one answer unless others are given."""
    made = Setting(
        setting_id=name,
        model="tiny",
        method="llada",
        setting="llada steps=2",
        task="copy",
        dtype="float32",
        answers=answers or (answer(),),
    )
    return replace(made, **values)  # type: ignore[arg-type]
