"""The families of methods, each with the loop that runs it."""

from harness.engine.autoregressive.drafting import AutoregressiveMethod
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.own_sampler import OwnSamplerMethod

Method = DiffusionMethod | AutoregressiveMethod | OwnSamplerMethod
METHOD_CLASSES: dict[str, type] = {
    "diffusion": DiffusionMethod,
    "autoregressive": AutoregressiveMethod,
    "own_sampler": OwnSamplerMethod,
}
