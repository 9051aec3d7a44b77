"""The first sweep that a newcomer runs compares what it promises to compare."""

from importlib.resources import files

from omegaconf import OmegaConf

QUICKSTART = OmegaConf.create(files("conf").joinpath("experiment/quickstart.yaml").read_text())


def test_it_spans_both_families_and_enough_settings_and_tasks() -> None:
    """Guards the promise of at least six method settings on at least four tasks, on both kinds of model."""
    models = {point.split()[0] for point in QUICKSTART.points}
    assert models == {"model=tiny_mdm", "model=tiny_ar"}
    assert len(set(QUICKSTART.points)) >= 6
    assert len(set(QUICKSTART.axes.task)) >= 4


def test_every_model_has_its_baseline() -> None:
    """Guards against a table without speedups, since a baseline must be part of the sweep."""
    assert {"model=tiny_mdm method=llada", "model=tiny_ar method=ar_greedy"} <= set(QUICKSTART.points)
