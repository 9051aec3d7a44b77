"""One run: check, resume, load, decode, score, store, report."""

import json
import logging
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from harness.config import build, options
from harness.config.catalogue import knobs, read
from harness.config.composition import resolved
from harness.config.hardware import device_name
from harness.config.job import Job, by_role, refused_ids, resolve
from harness.config.source_digest import Code, differences
from harness.errors import ConfigError, DataError
from harness.models.pool import LoadedModel
from harness.results import metrics
from harness.results.canonical import canonical_json
from harness.results.schemas import RUNS, SCHEMA_VERSION
from harness.results.store import Store
from harness.runs import device as device_switches
from harness.runs import provenance
from harness.runs.measure import Measure, Measurement, peak_memory_bytes, reset_peak_memory, settled_heap
from harness.runs.progress import Progress, Silent
from harness.runs.street import Street
from harness.runs.trackers import build_tracker

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What became of a run: its row of the runs table, and whether an earlier result was taken."""

    row: dict[str, Any]
    resumed: bool = False

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.row["run_id"]

    @property
    def status(self) -> str:
        """ok, failed or skipped."""
        return self.row["status"]


def run(cfg: DictConfig, progress: Progress | None = None) -> RunRecord:
    """Execute the run that `cfg` describes and return its record.

    With `on_error=record` a run that cannot be or fails is stored as skipped or failed; otherwise its exception is
    raised (after a failure was stored). Nothing that is stored is changed.
    """
    store = Store(root=Path(cfg.results_dir))
    try:
        job = resolve(cfg)
    except ConfigError as refusal:
        if cfg.on_error == "raise":
            raise
        return _keep(store, cfg, refused_ids(resolved(cfg)), {"status": "skipped", "error": str(refusal)})
    if cfg.resume and (row := store.completed(job.run_id)) is not None:
        return RunRecord(row=dict(row), resumed=True)
    store.prepare()
    try:
        return _execute(job, store, progress or Silent())
    except (Exception, SystemExit) as error:
        names = (job.setting_id, job.run_id)
        record = _keep(store, cfg, names, {"status": "failed", "error": _one_line(error)})
        (store.root / "errors").mkdir(exist_ok=True)
        (store.root / "errors" / f"{record.run_id}.txt").write_text(traceback.format_exc())
        if cfg.on_error == "raise":
            raise
        _LOG.error("%s failed: %s", record.run_id, record.row["error"])
        return record


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ConfigError | DataError) else f"{type(error).__name__}: {text}"


def _execute(job: Job, store: Store, progress: Progress) -> RunRecord:
    cfg, plain = job.cfg, job.plain
    tracker = build_tracker(plain["tracker"], store.root / "wandb")
    _say_what_changed(job, store)
    switches = device_switches.apply(
        device=job.device, dtype=cfg.device.dtype, threads=cfg.device.threads, deterministic=cfg.device.deterministic
    )
    loaded = build.load_model(cfg, job.checkpoint_sha256)
    _LOG.info("%s starts: %s %s on %s", job.run_id, cfg.model.name, setting(plain), cfg.task.name)
    device = loaded.model.device
    reset_peak_memory(device)
    street = _street(job, loaded, progress)
    with settled_heap() if street.measure.timed else nullcontext():
        samples, steps, seconds = street.walk()
    grading = job.task.grading()
    warnings = [*grading.warnings, *metrics.unfinished_warnings(samples)]
    for warning in warnings[len(grading.warnings) :]:
        _LOG.warning("%s: %s", job.run_id, warning)
    row = _row(cfg, plain, (job.setting_id, job.run_id)) | {"status": "ok", "warnings": warnings}
    row |= metrics.summarize(samples, seconds)
    row |= {
        "peak_memory_bytes": peak_memory_bytes(device),
        "device": f"{device_name(str(device))}, {switches.threads} threads",
        "sandbox_tier": grading.facts.get("sandbox_tier"),
        "produced_by": canonical_json(
            {**job.producer, "modules": dict(job.code.modules), "versions": dict(job.code.versions)}
        ),
        "provenance": canonical_json(
            provenance.collect(str(device), switches=switches.to_dict())
            | {"checkpoint_sha256": loaded.checkpoint_sha256, "parameters": loaded.parameters}
            | {"grading": dict(grading.facts)}
        ),
    }
    row["attempt"] = store.write(row, samples, steps)
    try:
        tracker.report(row, plain, samples)
    except Exception as error:
        # The parquet rows are written: a tracker that fails costs its report, not the run.
        _LOG.warning("%s: the tracker failed (%s); results are in %s", job.run_id, _one_line(error), store.root)
    return RunRecord(row=row)


def _say_what_changed(job: Job, store: Store) -> None:
    """Warn, in one line, that a stored run of the same setting differs in code or versions only, and in which."""
    stored = store.latest_of(job.setting_id)
    if stored is None or not stored["produced_by"]:
        return
    made = json.loads(str(stored["produced_by"]))
    old = Code(modules=made.pop("modules"), versions=made.pop("versions"))
    changed = differences(old, job.code)
    if changed and made == json.loads(canonical_json(dict(job.producer))):
        _LOG.warning("%s: stored as %s, run anew: changed %s", job.run_id, stored["run_id"], ", ".join(changed))


def _street(job: Job, loaded: LoadedModel, progress: Progress) -> Street:
    cfg, settings = job.cfg, job.plain["measure"]
    numbers = {k: int(v) for k, v in settings.items() if k in ("warmup", "repetitions")}
    return Street(
        task=job.task,
        method=job.method,
        loaded=loaded,
        measure=Measure(name=Measurement(settings["name"]), **numbers),
        batch_size=cfg.batch_size,
        gen_length=cfg.gen_length,
        seed=cfg.seed,
        model=cfg.model.name,
        progress=progress,
    )


def setting(plain: Mapping[str, Any]) -> str:
    """Return the method, its knobs that differ from the published defaults, and the policies put in place of its own.

    A policy that was put in is followed by those of its fields that differ from its class's defaults.
    """
    method = plain["method"]
    option = read("method", method["name"])
    defaults = knobs(option)
    defaults = {k: plain["gen_length"] if v == "${.gen_length}" else v for k, v in defaults.items()}
    changed = [f"{k}={method[k]}" for k, v in defaults.items() if not str(v).startswith("${") and method.get(k) != v]
    for slot, name in options.parts_of(option).items():
        put_in = options.option_of(f"method/{slot}", method[slot]["_target_"])
        if put_in != name:
            fields = options.changed_fields(f"method/{slot}", put_in, method[slot])
            changed += [f"{slot}={put_in}", *(f"{slot}.{key}={value}" for key, value in fields.items())]
    return " ".join([method["name"], *changed])


def _row(cfg: DictConfig, plain: dict[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    return dict.fromkeys(RUNS.names) | {
        "setting_id": names[0],
        "run_id": names[1],
        "created": datetime.now(UTC),
        "name": cfg.name,
        "model": cfg.model.name,
        "family": cfg.method.family,
        "method": cfg.method.name,
        "setting": setting(plain),
        "task": cfg.task.name,
        "template": cfg.task.get("template"),
        "protocol": cfg.task.get("protocol"),
        "seed": cfg.seed,
        "gen_length": cfg.gen_length,
        "batch_size": cfg.batch_size,
        "dtype": cfg.device.dtype,
        "measure": cfg.measure.name,
        "config": canonical_json(plain),
        "provenance": "{}",
        "warnings": [],
        "schema_version": SCHEMA_VERSION,
    }


def _keep(store: Store, cfg: DictConfig, names: tuple[str, str], outcome: dict[str, Any]) -> RunRecord:
    """Store a run that has no samples."""
    row = _row(cfg, by_role(resolved(cfg)), names) | outcome
    row["attempt"] = store.write(row)
    return RunRecord(row=row)
