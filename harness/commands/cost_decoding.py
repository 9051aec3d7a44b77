"""What `decbench cost` has decoded: a few prompts, in whole batches of as many rows as was asked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from harness.config.job import Job
    from harness.runs.decode_batch import Decoded

_FEW = 8
_MOST_ROWS = 4096
"""Of a small model in this process, whose calls take memory; what is priced may be as large as it likes."""


def job_of(overrides: Sequence[str]) -> "Job":
    """Return the decoding of a few prompts; raise ConfigError, before any model is loaded, for what has no price."""
    from harness.config.composition import compose
    from harness.config.job import resolve
    from harness.config.root import Batching

    words, given = [*overrides, "measure=traced"], {word.partition("=")[0]: word for word in overrides}
    few, alike = "task.samples" not in given, "cost prices batches of fixed rows; leave it out and use batch_size"
    if "batch_tokens" in given:
        raise ConfigError(f"{given['batch_tokens']}: {alike}")
    cfg = compose([*words, f"task.samples={_FEW}"] if few else words)
    _refuse_beside(cfg)
    if cfg.batching != Batching.FIXED.value:
        raise ConfigError(f"batching={cfg.batching}: {alike}")
    if cfg.batch_size > _MOST_ROWS:
        raise ConfigError(f"batch_size={cfg.batch_size}: cost decodes at most {_MOST_ROWS} rows at once; use fewer")
    if few and cfg.batch_size > 0 and _FEW % cfg.batch_size:
        # A batch that is not full has calls of another size, which the price of full ones is not told from.
        cfg = compose([*words, f"task.samples={-(-_FEW // cfg.batch_size) * cfg.batch_size}"])
    job = resolve(cfg)
    if (samples := len(job.task.instances())) < cfg.batch_size:
        raise ConfigError(
            f"batch_size={cfg.batch_size}: only {samples} samples of task={job.task.name} would be decoded, fewer than "
            f"a batch; use batch_size={samples}" + ("" if few else f" or task.samples={cfg.batch_size}")
        )
    return job


def _refuse_beside(cfg: "DictConfig") -> None:
    from harness.config.drafts import ROLES, TARGET

    for role in (role for role, key in ROLES.items() if role != TARGET and cfg[key] is not None):
        raise ConfigError(
            f"model@{role}={cfg[role].name}: calls of a {role} would be priced as those of the target, the one "
            f"shape that cost is given; use method=prompt_lookup, or run"
        )


def decode(job: "Job") -> tuple[list["Decoded"], list[list[int]]]:
    """Return decoded batches of a task's prompts, and the lengths of the prompts of each."""
    from harness.runs.progress import Silent
    from harness.runs.runner import street_of

    street, _ = street_of(job, Silent())
    prompts, decoded = zip(*street.decodings(), strict=True)
    return list(decoded), [[len(one) for one in batch] for batch in prompts]
