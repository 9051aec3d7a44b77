"""Process-wide switches of torch: threads and determinism, set once per run and recorded."""

import os
from dataclasses import asdict, dataclass

import torch

from harness.config.hardware import require


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """What the process was set to; the names are those of the record."""

    device: str
    dtype: str
    threads: int
    deterministic: bool
    tf32: bool
    cublas_workspace: str | None

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return asdict(self)


def apply(*, device: str, dtype: str, threads: int | None, deterministic: bool) -> DeviceState:
    """Set threads and deterministic kernels for this process and return what holds now.

    `threads` None leaves torch's own choice. Raises ConfigError for CUDA where there is none. The workspace variable
    of cuBLAS has to be set before CUDA starts, which is why this runs before a model is loaded.
    """
    require(device)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The switch of use_deterministic_algorithms(), which also imports torch's compiler: a second for every command.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if threads is not None:
        torch.set_num_threads(threads)
    return DeviceState(
        device=device,
        dtype=dtype,
        threads=torch.get_num_threads(),
        deterministic=deterministic,
        tf32=False,
        cublas_workspace=os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )
