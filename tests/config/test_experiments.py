"""Experiments that claim to cover something do."""

from collections import defaultdict

from harness.config.catalogue import names, read


def test_every_decoder_is_compared_at_its_defaults_and_two_more_points():
    """Guards the comparison of all decoders against one that is listed and left out; a bound has one point."""
    points = defaultdict(set)
    for point in read("experiment", "decoders_tiny")["points"]:
        values = dict(part.split("=", 1) for part in point.split())
        values.pop("model", None)
        points[values.pop("method")].add(frozenset(values.items()))
    decoders = {name for name in names("method") if read("method", name)["family"] == "diffusion"}
    assert set(points) == decoders
    assert all(frozenset() in knobs for knobs in points.values())
    assert {name for name, knobs in points.items() if len(knobs) < 3} == {"oracle"}
