"""One run: check, resume, load, decode, score, store, report."""

import hashlib
import logging
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from harness.engine.generation import DecodeError, Generation
from harness.engine.randomness import sample_seed
from harness.errors import ConfigError, DataError
from harness.models.pool import LoadedModel
from harness.results import metrics
from harness.results.schemas import BUDGET, COUNTERS, RUNS, SAMPLES, SCHEMA_VERSION, STEPS
from harness.results.store import Store
from harness.runs import build, compatibility, options, provenance
from harness.runs import device as device_switches
from harness.runs.catalogue import knobs, read
from harness.runs.config import resolved
from harness.runs.decode_batch import Decoded, decode_batch, with_room
from harness.runs.identity import canonical_json, run_id
from harness.runs.measure import Measure, Measurement, peak_memory_bytes, reset_peak_memory, settled_heap
from harness.runs.progress import Progress, Silent
from harness.runs.trackers import build_tracker
from tasks.task import Sample, Task

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
    progress, refusal = progress or Silent(), compatibility.refusal(cfg)
    if refusal and cfg.on_error == "raise":
        raise refusal
    store, plain = Store(root=Path(cfg.results_dir)), resolved(cfg)
    store.prepare()
    if refusal:
        return _keep(store, cfg, plain, {"status": "skipped", "error": str(refusal)})
    try:
        return _execute(cfg, plain, store, progress)
    except Exception as error:
        record = _keep(store, cfg, plain, {"status": "failed", "error": _one_line(error)})
        (store.root / "errors").mkdir(exist_ok=True)
        (store.root / "errors" / f"{record.run_id}.txt").write_text(traceback.format_exc())
        if cfg.on_error == "raise":
            raise
        _LOG.error("%s failed: %s", record.run_id, record.row["error"])
        return record


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ConfigError | DataError) else f"{type(error).__name__}: {text}"


def _execute(cfg: DictConfig, plain: dict[str, Any], store: Store, progress: Progress) -> RunRecord:
    task = build.build_task(cfg)
    tracker = build_tracker(plain["tracker"], store.root / "wandb")
    switches = device_switches.apply(
        device=build.device_of(cfg),
        dtype=cfg.device.dtype,
        threads=cfg.device.threads,
        deterministic=cfg.device.deterministic,
    )
    loaded = build.load_model(cfg)
    identity = run_id(plain, checkpoint_sha256=loaded.checkpoint_sha256, task_version=task.version)
    if cfg.resume and store.completed(identity):
        return RunRecord(row=store.read("runs", [identity]).to_pylist()[0], resumed=True)
    _LOG.info("%s starts: %s %s on %s", identity, cfg.model.name, setting(plain), cfg.task.name)
    device = loaded.model.device
    reset_peak_memory(device)
    street = _Street(
        cfg=cfg, task=task, method=build.build_method(cfg), loaded=loaded, run_id=identity, progress=progress
    )
    with settled_heap() if street.measure.timed else nullcontext():
        samples, steps, seconds = street.walk()
    grading = task.grading()
    warnings = [*grading.warnings, *metrics.unfinished_warnings(samples)]
    for warning in warnings[len(grading.warnings) :]:
        _LOG.warning("%s: %s", identity, warning)
    row = _row(cfg, plain, identity) | {"status": "ok", "warnings": warnings}
    row |= metrics.summarize(samples, seconds)
    row |= {
        "peak_memory_bytes": peak_memory_bytes(device),
        "device": f"{provenance.device_name(str(device))}, {switches.threads} threads",
        "sandbox_tier": grading.facts.get("sandbox_tier"),
        "provenance": canonical_json(
            provenance.collect(str(device), switches=switches.to_dict())
            | {"checkpoint_sha256": loaded.checkpoint_sha256, "parameters": loaded.parameters}
            | {"grading": dict(grading.facts)}
        ),
    }
    store.write(row, samples, steps)
    try:
        tracker.report(row, plain, samples)
    except Exception as error:
        # The parquet rows are written: a tracker that fails costs its report, not the run.
        _LOG.warning("%s: the tracker failed (%s); results are in %s", identity, _one_line(error), store.root)
    return RunRecord(row=row)


@dataclass(frozen=True, kw_only=True)
class _Street:
    """The way of every sample: prompt ids, batch, loop, text, score, row."""

    cfg: DictConfig
    task: Task
    method: build.Method
    loaded: LoadedModel
    run_id: str
    progress: Progress

    @cached_property
    def measure(self) -> Measure:
        """How the config says to measure."""
        settings = resolved(self.cfg)["measure"]
        numbers = {k: int(v) for k, v in settings.items() if k in ("warmup", "repetitions")}
        return Measure(name=Measurement(settings["name"]), **numbers)

    def walk(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], float | None]:
        """Return rows of the samples and steps tables, and the seconds of all batches (None if not timed)."""
        measure = self.measure
        samples = self.task.instances()
        prompts = [self._prompt(sample) for sample in samples]
        rows, steps, seconds = [], [], 0.0
        size = self.cfg.batch_size
        if measure.warmup:
            self._decode(samples[: measure.warmup], prompts[: measure.warmup], 0, measure)
        self.progress.start(len(samples) * measure.repetitions)
        for repetition in range(measure.repetitions):
            for first in range(0, len(samples), size):
                part = slice(first, first + size)
                decoded = self._decode(samples[part], prompts[part], repetition, measure)
                seconds += decoded.watch.wall_s
                made = list(self._rows(samples[part], prompts[part], decoded, repetition, measure))
                rows += made
                steps += [self._step(samples[part], step) for step in decoded.steps]
                self.progress.advance(made)
        return rows, steps, seconds if measure.timed else None

    def _prompt(self, sample: Sample) -> list[int]:
        return with_room(
            self.loaded,
            self.loaded.tokenizer.encode_prompt(sample.prompt),
            gen_length=self.cfg.gen_length,
            where=f"task={self.cfg.task.name}, sample {sample.id}",
            model=self.cfg.model.name,
        )

    def _seeds(self, samples: Sequence[Sample], repetition: int) -> list[int]:
        return [sample_seed(self.cfg.seed, self.cfg.task.name, s.id, repetition) for s in samples]

    def _decode(
        self, samples: Sequence[Sample], prompts: list[list[int]], repetition: int, measure: Measure
    ) -> Decoded:
        try:
            return decode_batch(
                self.loaded.model,
                self.method,
                prompts,
                seeds=self._seeds(samples, repetition),
                gen_length=self.cfg.gen_length,
                measure=measure,
            )
        except DecodeError as error:
            if error.sample is None:
                raise
            raise DecodeError(f"sample {samples[error.sample].id}: {error}", sample=error.sample) from error

    def _rows(
        self,
        samples: Sequence[Sample],
        prompts: list[list[int]],
        decoded: Decoded,
        repetition: int,
        measure: Measure,
    ) -> Iterator[dict[str, Any]]:
        stop_ids = self.loaded.model.spec.stop_ids
        seeds = self._seeds(samples, repetition)
        watch = decoded.watch if measure.timed else None
        for sample, ids, seed, made, counters in zip(
            samples, prompts, seeds, decoded.generations, decoded.counters(stop_ids), strict=True
        ):
            text = self.loaded.tokenizer.decode(made.answer)
            score = self.task.score(sample, text)
            row = dict.fromkeys(SAMPLES.names) | {name: counters[name] for name in COUNTERS}
            yield row | {
                "run_id": self.run_id,
                "sample_id": sample.id,
                "repetition": repetition,
                "seed": seed,
                "prompt_sha256": hashlib.sha256(canonical_json(ids).encode()).hexdigest(),
                "prompt_tokens": len(ids),
                "output_ids": list(made.tokens),
                "output_text": text,
                "correct": score.correct,
                "correct_strict": score.strict,
                "detail": score.detail,
                "extracted": score.extracted,
                "extraction": score.path,
                "measures": canonical_json(dict(score.measures)),
                "decided_at": list(made.decided_at),
                "token_margin": made.token_margin,
                "choice_margin": made.choice_margin,
                "latency_s": watch.wall_s if watch else None,
                "ttft_s": watch.marks_s[made.first_call] if watch and made.first_call >= 0 else None,
                "cpu_s": watch.cpu_s if watch else None,
                "finish_reason": _finish_reason(made, stop_ids),
            }

    def _step(self, samples: Sequence[Sample], step: dict[str, Any]) -> dict[str, Any]:
        known = {k: v for k, v in step.items() if k != "sample"}
        return dict.fromkeys(STEPS.names) | {"run_id": self.run_id, "sample_id": samples[step["sample"]].id} | known


def _finish_reason(made: Generation, stop_ids: Collection[int]) -> str:
    if made.out_of_budget:
        return BUDGET
    return "stop" if any(token in stop_ids for token in made.tokens) else "length"


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


def _row(cfg: DictConfig, plain: dict[str, Any], identity: str) -> dict[str, Any]:
    return dict.fromkeys(RUNS.names) | {
        "run_id": identity,
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


def _keep(store: Store, cfg: DictConfig, plain: dict[str, Any], outcome: dict[str, Any]) -> RunRecord:
    """Store a run that has no samples."""
    identity = run_id(plain, checkpoint_sha256=None, task_version="none")
    row = _row(cfg, plain, identity) | outcome
    store.write(row)
    return RunRecord(row=row)
