"""Weights from safetensors files into a transformer: one tensor at a time, straight to the device, strictly by key."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.errors import DataError
from harness.files import sha256
from harness.models.hub import CONFIG
from harness.models.public.layout import Part
from harness.models.text import FILES as TOKENIZER_FILES

_DIGEST_LENGTH = 64


@torch.no_grad()
def fill(model: nn.Module, files: Sequence[Path], parts: Mapping[str, Part], *, copies: Mapping[str, str]) -> None:
    """Copy every tensor of `files` to the rows that `parts` names, in the dtype and on the device of the model.

    `copies` are tensors that some checkpoints hold twice: name to the in-tree parameter that they must equal. Raise
    DataError naming file and tensor for one that is missing, twice there, unknown, of another shape or no float, or
    that holds values which are not finite.
    """
    from safetensors import SafetensorError, safe_open

    parameters, left, second = dict(model.named_parameters()), {*parts}, []
    device = str(next(iter(parameters.values())).device)
    for file in files:
        try:
            with safe_open(file, framework="pt", device=device) as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    if name in copies and name not in parts:
                        second.append((file, name))
                        continue
                    if name not in left:
                        problem = "is in two files" if name in parts else f"is not part of the model of {CONFIG}"
                        raise DataError(f"{file}: tensor {name} {problem}")
                    left.remove(name)
                    _copy(file, name, tensors.get_tensor(name), parts[name], parameters)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{file}: not a readable safetensors file ({error}); download it again") from None
    if left:
        raise DataError(f"{files[0].parent}: tensor {min(left)} is missing from the files of weights")
    for file, name in second:
        with safe_open(file, framework="pt", device=device) as tensors:
            wanted = parameters[copies[name]]
            if not torch.equal(tensors.get_tensor(name).to(wanted.dtype), wanted):
                raise DataError(f"{file}: tensor {name} differs from the embedding that {CONFIG} ties it to")


def _copy(file: Path, name: str, tensor: Tensor, part: Part, parameters: Mapping[str, Tensor]) -> None:
    parameter = parameters[part.parameter]
    rows = parameter if parameter.dim() == 1 else parameter.view(-1, parameter.shape[-1])
    target = rows[part.start : part.start + part.rows]
    if tensor.shape != target.shape:
        raise DataError(
            f"{file}: tensor {name} has shape {tuple(tensor.shape)}, {CONFIG} asks for {tuple(target.shape)}"
        )
    if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise DataError(f"{file}: tensor {name} is {tensor.dtype}, not a float; quantised weights are not supported")
    target.copy_(tensor)
    if not target.isfinite().all():
        raise DataError(f"{file}: tensor {name} holds values that are not finite in {target.dtype}")


def digest(folder: Path, files: Sequence[Path]) -> str:
    """Return one sha256 over the names and digests of weights, config and tokenizer files.

    A file of the hub cache is a link to a blob that is named by its sha256, which is taken instead of reading it.
    """
    texts = [folder / name for name in (CONFIG, "generation_config.json", *TOKENIZER_FILES)]
    lines = [f"{file.name} {_digest_of(file)}\n" for file in [*texts, *files] if file.is_file()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest_of(file: Path) -> str:
    blob = file.resolve()
    named_by_content = blob.parent.name == "blobs" and len(blob.name) == _DIGEST_LENGTH
    return blob.name if named_by_content else sha256(file)
