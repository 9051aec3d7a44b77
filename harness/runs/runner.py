"""One run: check, resume, load, decode, score, store, report."""

import json
import logging
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from omegaconf import DictConfig

from harness.config import knobs, options
from harness.config.catalogue import knobs as published
from harness.config.catalogue import read
from harness.config.drafts import TARGET
from harness.config.hardware import device_name
from harness.config.job import Job, Refused, Shared, refused, resolve
from harness.config.overrides import numbers_typed, parse
from harness.config.root import Batching, OnError
from harness.config.source_digest import Code, differences
from harness.errors import ConfigError, DataError, MissingDependency, RunFailed, listed, one_line
from harness.models.pool import LoadedModel
from harness.results import metrics
from harness.results.canonical import canonical_json, printable
from harness.results.files import beside
from harness.results.parts import unfit
from harness.results.schemas import RUNS, SCHEMA_VERSION
from harness.results.store import Store
from harness.runs import provenance
from harness.runs.device import DeviceState
from harness.runs.loading import load
from harness.runs.machine import BUSY, observed
from harness.runs.measure import measure_of, peak_memory_bytes, reset_peak_memory, settled_heap
from harness.runs.progress import Progress, Silent
from harness.runs.room import Room
from harness.runs.street import Street
from harness.runs.trackers.report import id_of, report_of
from harness.runs.trackers.tracking import Tracking, Untracked, tracking_of
from harness.runs.unfinished import KeepsNothing, Unfinished
from harness.runs.votes import in_tokens

_LOG = logging.getLogger(__name__)
_NAMED = 4


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What became of a run: its row of the runs table, whether an earlier result was taken, and what made it fail."""

    row: dict[str, Any]
    resumed: bool = False
    error: BaseException | None = None

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.row["run_id"]

    @property
    def status(self) -> str:
        """ok, failed or skipped."""
        return self.row["status"]


def run(
    cfg: DictConfig, progress: Progress | None = None, *, begun: bool = False, shared: Shared | None = None
) -> RunRecord:
    """Execute the run that `cfg` describes, unless its result is stored, and return its record.

    `shared` is what runs of one command have in common. `begun` says that finished batches are this command's: they are
    taken over even if nothing is to be resumed. With `on_error=record` a run that cannot be or fails is stored as
    skipped or failed; otherwise its exception is raised (after a failure was stored).
    """
    store = Store(root=cfg.results_dir)
    try:
        job = resolve(cfg, shared)
        stored = store.completed(job.run_id) if cfg.resume else None
        if stored is None:
            job.require_grading()
    except (ConfigError, DataError, MissingDependency) as refusal:
        if cfg.on_error == OnError.STOP.value:
            raise
        return skip(refused(refusal, cfg.overrides, cfg), store, cfg.name)
    if stored is not None:
        return taken(job, store, dict(stored))
    record = perform(job, store, progress or Silent(), begun=begun)
    if record.error is not None and cfg.on_error == OnError.STOP.value:
        raise record.error
    return record


def decode_piece(cfg: DictConfig, piece: int, shared: Shared | None = None) -> None:
    """Decode every `cfg.split`-th batch of a run, from the one with the number `piece`, and keep them for the run."""
    job = resolve(cfg, shared)
    store = Store(root=cfg.results_dir)
    if cfg.resume and store.completed(job.run_id):
        return
    job.require_grading()
    street, _ = street_of(job, Silent())
    with _kept(job, store) as keeper:
        street.walk_piece(keeper, piece, cfg.split)
        keeper.write()


def perform(job: Job, store: Store, progress: Progress, *, begun: bool = False) -> RunRecord:
    """Execute a job, whatever is stored, and return its record; one that fails is stored, its error in the record.

    `begun` is what `run` says. Nothing that is stored is changed. Raises DataError where the store cannot be written.
    """
    store.prepare()
    try:
        return _execute(job, store, progress, begun)
    except (Exception, SystemExit) as error:
        row = _row(job.plain, (job.setting_id, job.run_id), job.cfg.overrides)
        row |= {"status": "failed", "error": one_line(error)}
        _keep(store, row)
        store.note_error(job.run_id, traceback.format_exc())
        _LOG.info("%s failed: %s", job.run_id, row["error"])
        if not isinstance(error, MissingDependency):
            with _reporting(job):
                _tracking(job).tell(report_of(row, [], job.cfg.name))
        # What ends a program would end this one as it likes, even with success.
        told = RunFailed(one_line(error)) if isinstance(error, SystemExit) else error
        return RunRecord(row=row, error=told)


def _keep(store: Store, row: dict[str, Any]) -> None:
    """Store the row of a run without samples; what no column can hold is left out, and stands in its reason."""
    row |= dict.fromkeys(unfit("runs", row))
    row["attempt"] = store.write(row)


def skip(job: Refused, store: Store, name: str | None) -> RunRecord:
    """Store a run that cannot be, with the reason; `name` is the sweep's."""
    names = (job.setting_id, job.run_id)
    if job.plain is None:
        row = _asked_row(job.overrides, names) | {"name": name}
    else:
        row = _row(job.plain, names, job.overrides)
    row |= {"status": "skipped", "error": job.reason}
    _keep(store, row)
    return RunRecord(row=row)


def _execute(job: Job, store: Store, progress: Progress, begun: bool) -> RunRecord:
    cfg, plain = job.cfg, job.plain
    tracking = _tracking(job)
    _say_what_changed(job, store)
    cautions = knobs.cautions(cfg.method, job.decoding.method)
    street, switches = street_of(job, progress)
    _LOG.info("%s starts: %s %s on %s", job.run_id, cfg.model.name, setting(plain, cfg.overrides), cfg.task.name)
    loaded = street.loaded
    device = loaded.model.device
    fresh = reset_peak_memory(device)
    started, timed = time.perf_counter(), street.measure.timed
    with _keeper(job, store, street, begun) as keeper, settled_heap() if timed else nullcontext():
        with observed(None if loaded.elsewhere else device) as seen:
            walked = street.walk(keeper)
        samples, steps = walked.samples, walked.steps
    wall_s = time.perf_counter() - started
    grading = job.task.grading()
    found = [*cautions, *walked.warnings, *metrics.unfinished_warnings(samples)]
    # Of a sweep it is said once, at its end.
    warnings = [*grading.warnings, *found, *([BUSY] if timed and seen.busy else [])]
    for warning in found:
        _LOG.warning("%s: %s", job.run_id, warning)
    row = _row(plain, (job.setting_id, job.run_id), cfg.overrides) | {"status": "ok", "warnings": warnings}
    row |= metrics.summarize(samples, walked.seconds)
    row |= {
        "wall_s": wall_s,
        "peak_memory_bytes": peak_memory_bytes(device) if fresh and not loaded.elsewhere else None,
        "device": loaded.elsewhere or f"{device_name(str(device))}, {switches.threads} threads",
        "sandbox_tier": grading.facts.get("sandbox_tier"),
        "produced_by": canonical_json(
            {**job.producer, "modules": dict(job.code.modules), "versions": dict(job.code.versions)}
        ),
        **asdict(seen),
        **_provenance(loaded, switches, grading.facts, provenance.calls(loaded, cfg.device.get("graphs", "off"))),
    }
    row["attempt"] = store.write(row, samples, steps)
    keeper.discard()
    with _reporting(job):
        tracking.tell(report_of(row, samples, cfg.name))
    return RunRecord(row=row)


def _tracking(job: Job) -> Tracking | Untracked:
    return tracking_of(job.plain["tracker"], beside(job.cfg.results_dir))


@contextmanager
def _reporting(job: Job) -> Iterator[None]:
    """Let a tracker fail: the rows are written, so it costs its report, not the run."""
    try:
        yield
    except Exception as error:
        where = job.cfg.results_dir
        _LOG.warning("%s: the tracker failed (%s); results are in %s", job.run_id, one_line(error), where)


def taken(job: Job, store: Store, row: dict[str, Any]) -> RunRecord:
    """Return the record of a stored run, told as this job asks for it.

    Report it where it was not: to another tracker, or under another name.
    """
    row["setting"] = setting(job.plain, job.cfg.overrides)
    with _reporting(job):
        tracking = _tracking(job)
        if not tracking.was_told(id_of(row, job.cfg.name)):
            tracking.tell(report_of(row, store.read("samples", [job.run_id]).to_pylist(), job.cfg.name))
    return RunRecord(row=row, resumed=True)


def _provenance(
    loaded: LoadedModel, switches: DeviceState, grading: Mapping[str, object], calls: Mapping[str, object]
) -> dict[str, Any]:
    """Return the columns that say what a run rests on: all as JSON, and by themselves what rows are chosen by."""
    device = str(loaded.model.device)
    told = provenance.collect(device, switches=switches.to_dict())
    columns = ("git_commit", "packages_sha256", "lock_sha256", "driver", "threads")
    return {name: told[name] for name in columns} | {
        "dirty": told["git_dirty"],
        "attention_kernel": provenance.attention_kernel(loaded.model, device),
        "provenance": canonical_json(
            {**told, "checkpoint_sha256": loaded.checkpoint_sha256, "parameters": loaded.parameters}
            | ({"weights": loaded.weights} if loaded.weights else {})
            | {f"{role}_sha256": one.checkpoint_sha256 for role, one in loaded.beside.items()}
            | {"grading": dict(grading), "graphs": dict(calls)}
        ),
    }


def _keeper(job: Job, store: Store, street: Street, begun: bool) -> Unfinished | KeepsNothing:
    if street.measure.timed:
        return KeepsNothing()
    if not job.cfg.resume and not begun:
        forget_batches(job, store)
    return _kept(job, store)


def forget_batches(job: Job, store: Store) -> None:
    """Remove the finished batches of a job: it is to be started anew."""
    _kept(job, store).discard()


def _kept(job: Job, store: Store) -> Unfinished:
    every_s = job.cfg.save_every_s
    return Unfinished(folder=store.folder, setting_id=job.setting_id, run_id=job.run_id, every_s=every_s)


def _say_what_changed(job: Job, store: Store) -> None:
    """Warn, in one line, that a stored run of the same setting differs in code or versions only, and in which."""
    stored = store.latest_of(job.setting_id)
    if stored is None or not stored["produced_by"]:
        return
    made = json.loads(str(stored["produced_by"]))
    old = Code(modules=made.pop("modules"), versions=made.pop("versions"))
    changed = differences(old, job.code)
    if changed and made == json.loads(canonical_json(dict(job.producer))):
        named = listed(changed, _NAMED)
        _LOG.warning("%s: stored as %s, run anew: changed %s", job.run_id, stored["run_id"], named)


def street_of(job: Job, progress: Progress) -> tuple[Street, DeviceState]:
    """Set this process to what a job asks for, load its model, and return the way of its samples, and what was set."""
    cfg = job.cfg
    switches, loaded = load(cfg, job.decoding.checkpoints)
    street = Street(
        task=job.task,
        method=in_tokens(job.decoding.method, loaded.tokenizer),
        loaded=loaded,
        measure=measure_of(job.plain["measure"]),
        room=Room(rows=cfg.batch_size, tokens=cfg.batch_tokens),
        continuous=cfg.batching == Batching.CONTINUOUS.value,
        gen_length=cfg.gen_length,
        seed=cfg.seed,
        model=cfg.model.name,
        progress=progress,
    )
    return street, switches


def setting(plain: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """Return the method, its knobs that differ from the published defaults, and the policies put in place of its own.

    A policy that was put in is followed by those of its fields that differ from its class's defaults, all that by the
    models that are asked beside the target. What a model is told that decodes by itself (`model.kwargs`) stands where
    the knobs do. Numbers are written as in the overrides.
    """
    method, typed = plain["method"], numbers_typed(overrides)
    option = read("method", method["name"])
    defaults = published(option)
    defaults = {k: plain["gen_length"] if v == "${.gen_length}" else v for k, v in defaults.items()}
    own = [k for k, v in defaults.items() if not str(v).startswith("${") and method.get(k) != v]
    changed = [f"{key}={typed.get(f'method.{key}', method[key])}" for key in own]
    for slot, name in options.parts_of(option).items():
        put_in = options.option_of(f"method/{slot}", method[slot]["_target_"])
        if put_in != name:
            fields = options.changed_fields(f"method/{slot}", put_in, method[slot])
            told = {key: typed.get(f"method.{slot}.{key}", value) for key, value in fields.items()}
            changed += [f"{slot}={put_in}", *(f"{slot}.{key}={value}" for key, value in told.items())]
    models = plain["models"]
    changed += [f"{role}={model['name']}" for role, model in models.items() if role != TARGET]
    kwargs = models["target"].get("kwargs") or {}
    changed += [f"{key}={typed.get(f'model.kwargs.{key}', value)}" for key, value in kwargs.items()]
    return " ".join([method["name"], *changed])


def _row(plain: Mapping[str, Any], names: tuple[str, str], overrides: Sequence[str]) -> dict[str, Any]:
    task = plain["task"]
    return _empty_row(names) | {
        "name": plain["name"],
        "model": plain["models"]["target"]["name"],
        "family": plain["method"]["family"],
        "method": plain["method"]["name"],
        "setting": setting(plain, overrides),
        "task": task["name"],
        "template": task.get("template"),
        "protocol": task.get("protocol"),
        "seed": plain["seed"],
        "gen_length": plain["gen_length"],
        "batch_size": plain["batch_size"],
        "batching": _batching(plain),
        "dtype": plain["device"]["dtype"],
        "measure": plain["measure"]["name"],
        "config": canonical_json(printable(plain)),
    }


def _asked_row(overrides: Sequence[str], names: tuple[str, str]) -> dict[str, Any]:
    """Return the row of what has no config: the options that were chosen, and all that was asked as the setting."""
    chosen = {one.key_or_group: str(one.value()) for one in parse(overrides) if one.package is None}
    told = {group: chosen.get(group) for group in ("model", "method", "task")}
    asked = {"setting": " ".join(overrides), "config": canonical_json(printable({"overrides": list(overrides)}))}
    return _empty_row(names) | told | asked


def _empty_row(names: tuple[str, str]) -> dict[str, Any]:
    return dict.fromkeys(RUNS.names) | {
        "setting_id": names[0],
        "run_id": names[1],
        "created": datetime.now(UTC),
        "provenance": "{}",
        "warnings": [],
        "schema_version": SCHEMA_VERSION,
    }


def _batching(plain: Mapping[str, Any]) -> str | None:
    """Return how rows begin where that is not batch after batch, with the positions that a call may have."""
    if plain["batching"] == Batching.FIXED.value:
        return None
    return " ".join(str(one) for one in (plain["batching"], plain["batch_tokens"]) if one is not None)
