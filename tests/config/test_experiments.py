"""Experiments that claim to cover something do."""

from collections import defaultdict

from harness.config import options
from harness.config.catalogue import names, read
from harness.config.matrix import caches

EMBEDDED = ("tiny_mdm", "tiny_block", "tiny_ar")


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


def test_every_decoder_and_every_cache_is_in_the_smoke_experiment():
    """Guards the gate against what is new: a decoder that an embedded model takes, or a cache, that it never runs."""
    points = [dict(part.split("=", 1) for part in one.split()) for one in read("experiment", "smoke")["points"]]
    kinds = {read("model", name)["kind"] for name in EMBEDDED}
    # A library's own generation needs a checkpoint of its classes, and stages are told in words.
    taken = {name for name in names("method") if kinds & {*read("method", name)["models"]}}
    elsewhere = {name for name in taken if read("method", name)["family"] == "own_sampler"} | {"staged_prompting"}
    assert {one["method"] for one in points} == taken - elsewhere
    own = {name: options.parts_of(read("method", name)).get("cache") for name in names("method")}
    assert {one.get("method/cache", own[one["method"]]) for one in points} - {None} == {*caches()}
