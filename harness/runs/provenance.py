"""What a number rests on: code, versions, machine, switches. Written with every run; holds no secrets."""

import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from harness.config.hardware import cpu_model
from harness.engine.shared.model import Models
from harness.models.pool import LoadedModel
from harness.results.canonical import canonical_json

ENVIRONMENT = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "SLURM_JOB_ID",
)
"""The environment variables that are recorded; no other is."""

_PACKAGES = ("decbench", "torch", "transformers", "hydra-core", "omegaconf", "numpy", "pyarrow", "safetensors")
_SECRET = re.compile(r"(?i)([\w.]*(?:api_?key|password|secret|credential)[\w.]*=)\S+")


_LOCKS = Path(__file__).resolve().parents[2] / "scripts"


def collect(device: str, *, switches: Mapping[str, object]) -> dict[str, object]:
    """Return the provenance of a run on `device` under `switches`, as plain JSON values."""
    return {
        **_code(),
        **_machine(),
        **_accelerator(device),
        **switches,
        # The program by its name: where it lies says nothing, and would be published with the rest.
        "command_line": [_SECRET.sub(r"\1***", one) for one in (Path(sys.argv[0]).name, *sys.argv[1:])],
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "load_average": list(os.getloadavg()),
    }


@cache
def _code() -> dict[str, object]:
    """Read once per process: later edits of the tree do not change the code that is loaded."""
    versions = _versions()
    return {
        **_git_state(Path(__file__).resolve()),
        "versions": versions,
        "packages_sha256": hashlib.sha256(canonical_json(versions).encode()).hexdigest(),
        "lock_sha256": _lock_digest(),
    }


def _lock_digest() -> str | None:
    """Return the digest of all locks of the checkout together; None where there are none, as beside a wheel."""
    locks = sorted(_LOCKS.glob("*.lock"))
    return hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest() if locks else None


def _git_state(file: Path) -> dict[str, object]:
    # An installed copy may lie inside somebody else's repository: only a tracked file names its commit.
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return {"git_commit": None, "git_dirty": None, "git_diff_sha256": None}
    diff, status = _git(file.parent, "diff", "HEAD", "--binary"), _git(file.parent, "status", "--porcelain")
    dirty = bool(status)
    unknown = _untracked(file.parent) if dirty else {}
    digest = hashlib.sha256(f"{diff}{status}{unknown}".encode()).hexdigest() if dirty else None
    commit = _git(file.parent, "rev-parse", "HEAD")
    return {"git_commit": commit and commit.strip(), "git_dirty": dirty, "git_diff_sha256": digest}


def _untracked(folder: Path) -> dict[str, str]:
    """Return the digests of the files that git does not know and is not told to ignore, by path."""
    top = Path((_git(folder, "rev-parse", "--show-toplevel") or str(folder)).strip())
    names = (_git(top, "ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
    files = [(name, top / name) for name in names if name]
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files if file.is_file()}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, check=True, encoding="utf-8", errors="replace"
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def _versions() -> dict[str, str | None]:
    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {"python": platform.python_version()} | {package: installed(package) for package in _PACKAGES}


@cache
def _machine() -> dict[str, object]:
    return {"platform": platform.platform(), "cpu_model": cpu_model(), "usable_cores": _usable_cores()}


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _accelerator(device: str) -> dict[str, object]:
    if torch.device(device).type != "cuda":
        return {"gpu_name": None, "gpu_memory_bytes": None, "cuda": None, "cudnn": None, "driver": None}
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu_name": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver(),
    }


def _driver() -> str | None:
    """Return the version of the loaded NVIDIA driver, None where the kernel does not tell it."""
    try:
        told = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module\D*?(\d+(?:\.\d+)+)", told)
    return found and found[1]


def attention_kernel(model: object, device: str) -> str | None:
    """Return the attention kernels that a model's calls choose from; None where it does not say.

    `model` is one of `harness.engine.shared.model.LanguageModel`; torch chooses among its own by shapes and masks.
    """
    chosen = getattr(model, "attention", None)
    if chosen != "sdpa" or torch.device(device).type != "cuda":
        return chosen
    switches = torch.backends.cuda
    kinds = {
        "flash": switches.flash_sdp_enabled(),
        "mem_efficient": switches.mem_efficient_sdp_enabled(),
        "cudnn": switches.cudnn_sdp_enabled(),
        "math": switches.math_sdp_enabled(),
    }
    return f"sdpa: {', '.join(name for name, enabled in kinds.items() if enabled)}"


def calls(loaded: LoadedModel, asked: str) -> dict[str, object]:
    """Return what `device.graphs` was and, by role, how many calls were replayed, padded, or neither, and why."""
    from harness.models.graphs import StaticModel, why_not

    def told(model: object) -> object:
        return dict(model.calls) if isinstance(model, StaticModel) else why_not(model) or "there is no CUDA"

    models = {"target": loaded.model}
    if isinstance(loaded.model, Models):
        models |= {"target": loaded.model.target} | {role: one.model for role, one in loaded.beside.items()}
    return {"asked": asked} | ({} if asked == "off" else {role: told(model) for role, model in models.items()})
