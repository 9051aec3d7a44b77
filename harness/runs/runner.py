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
from harness.results.canonical import canonical_json, printable
from harness.results.parts import unfit
from harness.results.schemas import RUNS, SCHEMA_VERSION
from harness.results.store import Store
from harness.runs import device as device_switches
from harness.runs import provenance
from harness.runs.device import DeviceState
from harness.runs.measure import Measure, Measurement, peak_memory_bytes, reset_peak_memory, settled_heap
from harness.runs.progress import Progress, Silent
from harness.runs.street import Street
from harness.runs.trackers import build_tracker
from harness.runs.unfinished import KeepsNothing, Unfinished

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
        if cfg.resume and (row := store.completed(job.run_id)) is not None:
            return _resumed(job, store, dict(row))
        _refuse_unstorable(job)
    except (Exception, SystemExit) as error:
        return _ended(store, cfg, refused_ids(resolved(cfg)), error)
    store.prepare()
    try:
        return _execute(job, store, progress or Silent())
    except (Exception, SystemExit) as error:
        return _ended(store, cfg, (job.setting_id, job.run_id), error, failed=True)


def _refuse_unstorable(job: Job) -> None:
    """Raise ConfigError for a value that no column can hold, before hours are spent on it."""
    row = _row(job.cfg, job.plain, (job.setting_id, job.run_id))
    for column, reason in unfit("runs", row).items():
        raise ConfigError(f"{column}={row[column]!a}: cannot be stored ({reason}); give another value")


def _ended(
    store: Store, cfg: DictConfig, names: tuple[str, str], error: BaseException, *, failed: bool = False
) -> RunRecord:
    """Store how a run ended that was refused or failed; raise what ended it, if that is to end the command."""
    failed = failed or not isinstance(error, ConfigError | DataError)
    if failed or cfg.on_error == "record":
        record = _keep(store, cfg, names, {"status": "failed" if failed else "skipped", "error": _one_line(error)})
        if failed:
            store.note_error(record.run_id, traceback.format_exc())
    if cfg.on_error == "raise":
        # What ends a program would end this one as it likes, even with success.
        raise RuntimeError(_one_line(error)) if isinstance(error, SystemExit) else error
    if failed:
        _LOG.error("%s failed: %s", record.run_id, record.row["error"])
    return record


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ConfigError | DataError) else f"{type(error).__name__}: {text}"


def _execute(job: Job, store: Store, progress: Progress) -> RunRecord:
    cfg, plain = job.cfg, job.plain
    tracker = build_tracker(plain["tracker"], Path(cfg.results_dir) / "wandb")
    _say_what_changed(job, store)
    switches = device_switches.apply(
        device=job.device, dtype=cfg.device.dtype, threads=cfg.device.threads, deterministic=cfg.device.deterministic
    )
    loaded = build.load_model(cfg, job.checkpoint_sha256)
    _LOG.info("%s starts: %s %s on %s", job.run_id, cfg.model.name, setting(plain), cfg.task.name)
    device = loaded.model.device
    reset_peak_memory(device)
    street = _street(job, loaded, progress)
    held_back = provenance.held_back(str(device))
    with _keeper(job, store, street) as keeper, settled_heap() if street.measure.timed else nullcontext():
        samples, steps, seconds = street.walk(keeper)
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
        **_provenance(loaded, switches, grading.facts, held_back),
    }
    row["attempt"] = store.write(row, samples, steps)
    keeper.discard()
    try:
        tracker.report(row, plain, samples, asked_as=cfg.name)
    except Exception as error:
        # The parquet rows are written: a tracker that fails costs its report, not the run.
        _LOG.warning("%s: the tracker failed (%s); results are in %s", job.run_id, _one_line(error), store.root)
    return RunRecord(row=row)


def _resumed(job: Job, store: Store, row: dict[str, Any]) -> RunRecord:
    """Return the record of a stored run, and report it where it was not: to another tracker, or under another name."""
    settings, name = job.plain["tracker"], job.cfg.name
    if settings["name"] != "none" and (row["name"], json.loads(row["config"])["tracker"]) != (name, settings):
        try:
            samples = store.read("samples", [job.run_id]).to_pylist()
            tracker = build_tracker(settings, Path(job.cfg.results_dir) / "wandb")
            tracker.report(row, json.loads(row["config"]), samples, asked_as=name)
        except Exception as error:
            _LOG.warning("%s: the tracker failed (%s); results are in %s", job.run_id, _one_line(error), store.root)
    return RunRecord(row=row, resumed=True)


def _provenance(
    loaded: LoadedModel, switches: DeviceState, grading: Mapping[str, object], held_back: bool | None
) -> dict[str, Any]:
    """Return the columns that say what a run rests on: all as JSON, and by themselves what rows are chosen by."""
    device = str(loaded.model.device)
    told = provenance.collect(device, switches=switches.to_dict())
    after = provenance.held_back(device)
    columns = ("git_commit", "packages_sha256", "lock_sha256", "driver", "threads")
    return {name: told[name] for name in columns} | {
        "dirty": told["git_dirty"],
        "attention_kernel": provenance.attention_kernel(loaded.model, device),
        "throttled": None if held_back is None or after is None else held_back or after,
        "provenance": canonical_json(
            {**told, "checkpoint_sha256": loaded.checkpoint_sha256, "parameters": loaded.parameters}
            | {"grading": dict(grading)}
        ),
    }


def _keeper(job: Job, store: Store, street: Street) -> Unfinished | KeepsNothing:
    if street.measure.timed:
        return KeepsNothing()
    every_s = job.cfg.save_every_s
    made = Unfinished(folder=store.folder, setting_id=job.setting_id, run_id=job.run_id, every_s=every_s)
    if not job.cfg.resume:
        made.discard()
    return made


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
    own = {slot: name for part in option["defaults"] if isinstance(part, dict) for slot, name in part.items()}
    for slot, name in own.items():
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
        "config": canonical_json(printable(plain)),
        "provenance": "{}",
        "warnings": [],
        "schema_version": SCHEMA_VERSION,
    }


def _keep(store: Store, cfg: DictConfig, names: tuple[str, str], outcome: dict[str, Any]) -> RunRecord:
    """Store a run that has no samples; what no column can hold is left out, and stands in its reason."""
    row = _row(cfg, by_role(resolved(cfg)), names) | outcome
    row |= dict.fromkeys(unfit("runs", row))
    row["attempt"] = store.write(row)
    return RunRecord(row=row)
