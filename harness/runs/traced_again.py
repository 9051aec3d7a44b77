"""Samples of a stored run, decoded again to see their steps; nothing is written."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.config.job import resolve
from harness.config.stored import restored
from harness.errors import ConfigError, DataError, MissingDependency, one_line
from harness.runs.measure import Measure, Measurement
from harness.runs.part_of_task import PartOfTask
from harness.runs.progress import Silent
from harness.runs.runner import street_of
from harness.runs.unfinished import KeepsNothing

Row = Mapping[str, Any]

_LOG = logging.getLogger(__name__)


def traced_again(run: Row, samples: Sequence[Row]) -> dict[str, list[Row]]:
    """Return rows of the steps table by name of sample, of those whose answer is the stored one.

    What cannot be decoded here, or is answered otherwise, is left out with a warning that says why.
    """
    try:
        made, steps = _decoded(run, frozenset(row["sample_id"] for row in samples))
    except (ConfigError, DataError, MissingDependency) as error:
        _LOG.warning("%s: cannot be decoded again here: %s", run["run_id"], one_line(error))
        return {}
    same = {row["sample_id"] for row in samples if list(row["output_ids"]) == made.get(row["sample_id"])}
    if len(same) < len(samples):
        told = "decoded again, %d of %d samples have other answers than stored; their steps are left out"
        _LOG.warning(f"%s: {told}", run["run_id"], len(samples) - len(same), len(samples))
    return {name: [row for row in steps if row["sample_id"] == name] for name in sorted(same)}


def _decoded(run: Row, names: frozenset[str]) -> tuple[dict[str, list[int]], list[Row]]:
    """Return the answers of some samples by name, and their steps."""
    config = json.loads(run["config"])
    if "models" not in config:
        raise DataError("its config is not stored")
    job = resolve(restored(config))
    street, _ = street_of(job, Silent())
    samples = [one for one in job.task.instances() if one.id in names]
    some: Any = PartOfTask(whole=job.task, samples=samples, graded=False)
    walked = replace(street, task=some, measure=Measure(name=Measurement.TRACED)).walk(KeepsNothing())
    return {row["sample_id"]: row["output_ids"] for row in walked.samples}, list(walked.steps)
