"""Getting ready to decode: the switches of the process, and the model."""

from collections.abc import Mapping
from types import MappingProxyType

from omegaconf import DictConfig

from harness.config import build
from harness.models.pool import LoadedModel
from harness.runs import device
from harness.runs.device import DeviceState


def load(
    cfg: DictConfig, checkpoints: Mapping[str, str | None] = MappingProxyType({})
) -> tuple[DeviceState, LoadedModel]:
    """Set this process to what a config asks for, and return that and its model, from the pool if it was loaded last.

    `checkpoints` tell what lies at the paths of its models, by role. Raises ConfigError for a device that is not there.
    """
    switches = cfg.device
    state = device.apply(
        device=build.device_of(cfg),
        dtype=switches.dtype,
        threads=switches.threads,
        deterministic=switches.deterministic,
    )
    return state, build.load_model(cfg, checkpoints)
