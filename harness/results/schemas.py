"""Columns of the three result tables, with unit and meaning in the metadata of every field."""

from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 6

_IDS = pa.list_(pa.int32())
BUDGET = "budget"
"""`finish_reason` of samples that did not come to an end."""

_UNSAID = {"protocol": "own", "batching": "fixed"}


def _column(name: str, kind: pa.DataType, unit: str, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"unit": unit, "meaning": meaning})


def _text(name: str, meaning: str) -> pa.Field:
    return _column(name, pa.string(), "", meaning)


def _schema(table: str, *columns: pa.Field) -> pa.Schema:
    return pa.schema(columns, metadata={"table": table, "schema_version": str(SCHEMA_VERSION)})


NAMES = ("setting_id", "run_id", "attempt")
"""Columns of every table: `run_id` with `attempt` joins runs, samples and steps; the store fills them in."""

COUNTERS = {
    "nfe": ("calls", "model calls in which the sample was live, a prompt's call that gives a token included"),
    "nfe_prefill": ("calls", "calls that computed the prompt apart; in nfe where they give a token"),
    "nfe_idle": ("calls", "skipped calls that the reference would have made"),
    "nfe_cache": ("calls", "calls only to store or refresh a cache, included in nfe"),
    "nfe_draft": ("calls", "calls of a draft model, not included in nfe"),
    "nfe_total": ("rows", "rows of all calls"),
    "query_tokens": ("tokens", "query positions computed (mean over layers where these differ), the prompt's included"),
    "layer_tokens": ("layer tokens", "query positions, summed over the layers run"),
    "tokens_out": ("tokens", "response up to and including the first stop id, before the first undecided position"),
    "tokens_canvas": ("tokens", "response positions there was room for: gen_length, unless the canvas grew or shrank"),
    "tokens_generated": ("tokens", "tokens proposed, discarded ones included"),
    "forced": ("positions", "positions committed only to guarantee progress"),
    "remasked": ("positions", "committed positions that were opened again"),
}
"""What a gate compares of every method."""

LOADS = {
    "layer_loads": ("layers", "loaded by all calls: a call loads each that it runs once, and half of one as half"),
    "critical_depth": ("layers", "of layer_loads, what can be run at the same time counted once"),
}
_DRAFTED = {
    "rounds": ("rounds", "calls that verified, drafts or none; the prompt's call is none"),
    "draft_tokens": ("tokens", "drafted and scored, of trees all nodes"),
    "accepted_draft_tokens": ("tokens", "drafts that stood, before the answer was cut behind a stop id"),
    "query_tokens_draft": ("tokens", "positions that calls to draft computed, included in query_tokens"),
    "layer_loads_draft": ("layers", "loaded by calls to draft, included in layer_loads"),
    "draft_s": ("s", "time of calls to draft, included in forward_s"),
}
_RATE = "accepted over drafted tokens; null for trees, and where nothing was drafted"
_PLACES = {
    "accept_lens": "tokens of every round, accepted drafts and the target's own, before the answer was cut",
    "tried_at": "rounds in which the drafts before each place of a draft (of trees, depth) stood, and one was there",
    "accepted_at": "rounds in which the draft at each place stood",
}
ASKED = {
    "asked": "calls, query_tokens and layer_loads of models beside target and draft by role, as JSON; null without any",
    "asked_s": "s of these calls by role, as JSON, included in forward_s; null unless timed",
}
"""What models by further roles were asked. They stand in texts, since roles are a method's own."""

COUNTED = (*COUNTERS, "head_tokens", *LOADS, *_DRAFTED, *_PLACES, "acceptance_rate", *ASKED)
"""Columns of samples that the engine counts; those of drafts are null for methods that draft nothing."""


MEANS = ("head_tokens", *LOADS, *_DRAFTED)
"""Columns of runs, beside counters, that are means of those of samples."""


def _counters(kind: pa.DataType) -> tuple[pa.Field, ...]:
    return tuple(_column(name, kind, unit, meaning) for name, (unit, meaning) in COUNTERS.items())


def _work(kind: pa.DataType) -> tuple[pa.Field, ...]:
    heads = _column("head_tokens", kind, "tokens", "positions whose logits were computed")
    loads = (_column(name, pa.float64(), *told) for name, told in LOADS.items())
    kinds = {name: pa.float64() if name in ("layer_loads_draft", "draft_s") else kind for name in _DRAFTED}
    return (heads, *loads, *(_column(name, kinds[name], *told) for name, told in _DRAFTED.items()))


def _names() -> tuple[pa.Field, ...]:
    return (
        _text("setting_id", "name of what was asked: the same across code, versions, machines and time"),
        _text("run_id", "name of what produced the numbers: the setting, batch, measurement, code and versions"),
        _column("attempt", pa.int32(), "", "number of the attempt at the setting, from 1; a later one is newer"),
    )


def empty(schema: pa.Schema) -> pa.Table:
    """Return a table without rows; `Schema.empty_table` imports pandas, which takes half a second."""
    return pa.Table.from_batches([], schema)


def shown(column: str, value: Any) -> Any:
    """Return what a value of a column is called; None where nothing that is not there has a name in it."""
    return _UNSAID.get(column) if value is None else value


def without_names(schema: pa.Schema) -> list[str]:
    """Return the columns of a table that whoever makes rows fills in."""
    return [name for name in schema.names if name not in NAMES]


def _margins(whose: str) -> tuple[pa.Field, pa.Field]:
    gap = f"smallest gap, over the {whose}"
    nothing = "null where nothing was compared"
    return (
        _column("token_margin", pa.float64(), "nats", f"{gap} commits, of log p of the token and the next; {nothing}"),
        _column(
            "choice_margin",
            pa.float64(),
            "score",
            f"{gap} choices, of what decided (score or threshold) and a position decided the other way; {nothing}",
        ),
    )


RUNS = _schema(
    "runs",
    *_names(),
    _text("status", "ok, failed or skipped"),
    _text("error", "why the run failed or was skipped"),
    _column("created", pa.timestamp("us", tz="UTC"), "UTC", "when the row was written"),
    _text("name", "label of the sweep"),
    _text("model", "option of the model group"),
    _text("family", "diffusion, autoregressive or own_sampler"),
    _text("method", "option of the method group"),
    _text("setting", "the method and its changed knobs"),
    _text("task", "option of the task group"),
    _text("template", "prompt template of the task"),
    _text("protocol", "protocol of prompts, lengths and grading, for tasks that have one"),
    _column("sandbox_tier", pa.int32(), "", "how generated programs were shut in, from 1 (best) to 4"),
    _column("seed", pa.int64(), "", "seed of the run"),
    _column("gen_length", pa.int32(), "tokens", "response positions"),
    _column("batch_size", pa.int32(), "samples", "rows decoded together"),
    _text(
        "batching", "continuous where rows begin as others end, with the budget of positions; null: batch after batch"
    ),
    _text("device", "device and number of threads, or the server asked; wall times compare only where it is equal"),
    _text("dtype", "number format of the weights"),
    _text("measure", "counts, timed or traced"),
    _column("n", pa.int32(), "samples", "samples, repetitions not counted"),
    _column("accuracy", pa.float64(), "share", "correct samples, null where verdicts are not to be had"),
    _column("accuracy_low", pa.float64(), "share", "lower end of the Wilson 95 % interval"),
    _column("accuracy_high", pa.float64(), "share", "upper end of the Wilson 95 % interval"),
    _column("accuracy_strict", pa.float64(), "share", "correct samples by the strict grader"),
    *_counters(pa.float64()),
    *_work(pa.float64()),
    _column("accepted_length", pa.float64(), "tokens/round", "accepted drafts and the target's own, over all rounds"),
    _column("draft_length", pa.float64(), "tokens/round", "drafted tokens over rounds"),
    _column("acceptance_rate", pa.float64(), "share", _RATE),
    _column("acceptance_at", pa.list_(pa.float64()), "share", "of the tries of each place of drafts, those that stood"),
    *(_text(name, f"mean of {meaning}") for name, meaning in ASKED.items()),
    _column("waste", pa.float64(), "share", "of tokens_generated, those that are not in tokens_out"),
    _column("tpf", pa.float64(), "tokens/call", "sum of tokens_out over sum of nfe"),
    _column("efe", pa.float64(), "calls", "equivalent full forwards: query tokens over canvas length"),
    _column("latency_s", pa.float64(), "s", "mean wall time of generation"),
    _column("latency_p50_s", pa.float64(), "s", "median wall time of generation"),
    _column("latency_p90_s", pa.float64(), "s", "90th percentile of the wall time of generation"),
    _column("latency_p95_s", pa.float64(), "s", "95th percentile of the wall time of generation"),
    _column("latency_p99_s", pa.float64(), "s", "99th percentile of the wall time of generation"),
    _column("ttft_s", pa.float64(), "s", "mean time until the first response position is final"),
    _column("forward_s", pa.float64(), "s", "mean time of the model calls of generation, on the device's clock"),
    _column("rest_s", pa.float64(), "s", "mean of the rest of the wall time: policies, caches, counting"),
    _column(
        "padding_waste",
        pa.float64(),
        "share",
        "computed positions that nobody needed: rows are as wide as the widest",
    ),
    _column("tps", pa.float64(), "tokens/s", "sum of tokens_out over sum of batch seconds"),
    _column("wall_s", pa.float64(), "s", "what the run took, grading included and loading not; tells nothing of speed"),
    _column(
        "peak_memory_bytes",
        pa.int64(),
        "bytes",
        "peak memory of the run: of tensors on a GPU, of the whole process on a CPU; null where it is not told",
    ),
    _column(
        "energy_joules", pa.float64(), "J", "what the accelerator took, warm-up included; null where it is not told"
    ),
    _text("git_commit", "commit of the code; null where it is not in a repository"),
    _column("dirty", pa.bool_(), "", "whether files differed from the commit or were unknown to it"),
    _text("packages_sha256", "digest of the versions of Python and of the packages that numbers hang on"),
    _text("lock_sha256", "digest of the lock files of the checkout; null for an installed package"),
    _text("driver", "version of the accelerator's driver; null without one"),
    _text("attention_kernel", "attention kernels that could be chosen; null where a model does not say"),
    _column("threads", pa.int32(), "threads", "threads of the process"),
    _column("throttled", pa.bool_(), "", "whether the accelerator held its clocks back; null where it cannot be read"),
    _column(
        "busy",
        pa.bool_(),
        "",
        "whether other processes computed on the accelerator, or took a tenth of the processors' time; null if unknown",
    ),
    _text("config", "resolved configuration as JSON"),
    _text("provenance", "code, machine and versions as JSON"),
    _column("warnings", pa.list_(pa.string()), "", "what a reader of the numbers should know"),
    _text("produced_by", "what of run_id is not the setting, as JSON: measurement, device, modules, versions"),
    _column("sample_rows", pa.int32(), "rows", "rows of this attempt in samples"),
    _column("step_rows", pa.int32(), "rows", "rows of this attempt in steps"),
    _column("schema_version", pa.int32(), "", "version of these columns"),
)

SAMPLES = _schema(
    "samples",
    *_names(),
    _text("sample_id", "name of the task instance"),
    _column("repetition", pa.int32(), "", "repetition of the measurement, from 0"),
    _column("seed", pa.uint64(), "", "seed of the sample's generator"),
    _text("prompt_sha256", "digest of the prompt ids"),
    _column("prompt_tokens", pa.int32(), "tokens", "prompt length without padding"),
    _column("output_ids", _IDS, "token ids", "all response positions, the mask where one was left undecided"),
    _text("output_text", "response up to the first stop id, before the first undecided position"),
    _column("correct", pa.bool_(), "", "graded answer, null where the verdict is not to be had"),
    _column("correct_strict", pa.bool_(), "", "answer graded by the strict grader"),
    _text("detail", "what the grader found"),
    _text("extracted", "answer found in the text"),
    _text("extraction", "rule that found it"),
    _text("reader", "what decided where several readers can: text (our own) or math_verify"),
    _text("measures", "further numbers about the answer as JSON, such as verdicts of other graders"),
    *_counters(pa.int64()),
    *_work(pa.int64()),
    *(_column(name, _IDS, "", meaning) for name, meaning in _PLACES.items()),
    _column("acceptance_rate", pa.float64(), "share", _RATE),
    *(_text(name, meaning) for name, meaning in ASKED.items()),
    _column("decided_at", _IDS, "steps", "step at which each position was committed, -1 if given, -2 if never"),
    *_margins("sample's"),
    _column("padded_tokens", pa.int64(), "positions", "computed to make its row as wide as others"),
    _column("latency_s", pa.float64(), "s", "wall time from the entry of the sample to its end"),
    _column("ttft_s", pa.float64(), "s", "time until the first response position is final"),
    _column("cpu_s", pa.float64(), "s", "CPU time of generation"),
    _column("forward_s", pa.float64(), "s", "time of the model calls of generation, on the device's clock"),
    _column("rest_s", pa.float64(), "s", "the rest of the wall time: policies, caches, counting"),
    _text("finish_reason", "stop, length, or budget: ended because it used up its model calls undecided"),
    _column(
        "unseen", pa.list_(pa.string()), "", "what the counts cannot tell of code that is not ours; empty for ours"
    ),
)

STEPS = _schema(
    "steps",
    *_names(),
    _text("sample_id", "name of the task instance"),
    _column("repetition", pa.int32(), "", "repetition of the measurement, from 0"),
    _column("step", pa.int32(), "", "step from 0"),
    _column("window", _IDS, "positions", "first and one past the last position of the window"),
    _column("n_open", pa.int32(), "positions", "undecided positions before the step"),
    _column("n_committed", pa.int32(), "positions", "positions committed in the step"),
    _column("positions", _IDS, "positions", "committed positions, from the first response position"),
    _column("tokens", _IDS, "token ids", "tokens committed at them"),
    _column("scores", pa.list_(pa.float32()), "", "scores of the committed tokens"),
    _column("entropy", pa.list_(pa.float32()), "nats", "entropy of the distributions at them, null where not read"),
    _column("remasked", _IDS, "positions", "committed positions that were opened again; null where positions moved"),
    _column("edited", _IDS, "positions", "committed positions whose token was replaced; null where positions moved"),
    _column("predicted", _IDS, "token ids", "decided tokens, and the best ones of other positions (-1: not read)"),
    *_margins("step's"),
    _column("n_computed", pa.int32(), "positions", "positions computed since the sample's last step (query_tokens)"),
    _column("n_reused", pa.int32(), "positions", "visible positions taken from caches by the calls that computed them"),
    _column("cached", _IDS, "positions", "response positions they took from caches; null where layers differ in them"),
    _column("drafted", _IDS, "positions", "drafted for the step, accepted ones first; null where nothing is drafted"),
    _column("n_drafted", pa.int32(), "tokens", "drafted tokens"),
    _column("n_accepted", pa.int32(), "tokens", "drafted tokens that were accepted"),
)

REQUESTS = _schema(
    "requests",
    _text("sweep_id", "name of one command that asked for runs"),
    _text("name", "label of the sweep"),
    _text("setting_id", "name of what was asked"),
    _text("run_id", "name of the run that answered"),
    _column("attempt", pa.int32(), "", "number of the attempt that answered; while it waits, of the last one before"),
    _text("status", "ok, failed or skipped; waiting until the sweep has ended"),
    _column("resumed", pa.bool_(), "", "whether it was taken from the store"),
    _column("created", pa.timestamp("us", tz="UTC"), "UTC", "when the sweep ended; while it runs, when it started"),
    _text("label", "what a reader knows the run by: model, setting and task"),
    _column("decodings", pa.int32(), "samples", "samples times repetitions; null where the task alone knows"),
)

SCHEMAS: dict[str, pa.Schema] = {"runs": RUNS, "samples": SAMPLES, "steps": STEPS, "requests": REQUESTS}
WAITING = "waiting"
"""`status` of requests that nothing has answered yet."""

RESULTS = ("runs", "samples", "steps")
"""The tables whose rows are named by attempt."""
