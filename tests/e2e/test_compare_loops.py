"""`scripts/compare_loops` on stand-ins for public checkouts: loops of the same signatures, in words of our own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "compare_loops"
LENGTH = 8
LOOP = '''
import torch

@torch.no_grad()
def generate(model, prompt, steps, gen_length, block_length, mask_id):
    """One token per step, block after block: the surest of those that are masked."""
    rows, start = prompt.shape
    x = torch.cat([prompt, torch.full((rows, gen_length), mask_id)], 1)
    for _ in range(gen_length // block_length):
        for _ in range(block_length):
            p, best = model(x).logits.double().softmax(-1).max(-1)
            p[x != mask_id] = -1
            p[:, start + block_length :] = -1
            at = p.argmax(1)
            x[torch.arange(rows), at] = best[torch.arange(rows), at]
        start += block_length
    return x
'''

CACHED = """
import torch
from .model.modeling_llada import LLaDAModelLM  # needs kernels

def close(logits, x, mask_id, count):
    p, best = logits.double().softmax(-1).max(-1)
    p[x != mask_id] = -1
    p[:, count:] = -1
    for row, surest in enumerate(p.argmax(1)):
        x[row] = torch.where((p[row] >= 0.9) | (torch.arange(x.shape[1]) == surest) & (p[row] > 0), best[row], x[row])

def decoded(model, prompt, steps, gen_length, block_length, mask_id, threshold, dual):
    rows, start = prompt.shape
    assert threshold == 0.9
    x, calls = torch.cat([prompt, torch.full((rows, gen_length), mask_id)], 1), 0
    for s in range(start, x.shape[1], block_length):
        e = s + block_length
        made = model(x, use_cache=True)
        close(made.logits[:, s:], x[:, s:], mask_id, block_length)
        calls += 1
        place = torch.zeros_like(x, dtype=torch.bool)
        place[:, s:e] = True
        kept = made.past_key_values
        if not dual:
            kept = [tuple(one[:, :, :s] for one in layer) for layer in kept]
        assert {one.shape[2] for layer in kept for one in layer} == {x.shape[1] if dual else s}
        while (x[:, s:e] == mask_id).any():
            window = x[:, s:e] if dual else x[:, s:]
            where = {"replace_position": place} if dual else {}
            close(model(window, past_key_values=kept, use_cache=True, **where).logits, window, mask_id, block_length)
            calls += 1
    return x, calls

def generate_with_prefix_cache(model, prompt, **told):
    return decoded(model, prompt, dual=False, **told)

def generate_with_dual_cache(model, prompt, **told):
    return decoded(model, prompt, dual=True, **told)
"""
MIXED_IN = """
import copy

import torch

class DreamGenerationMixin:
    def diffusion_generate(self, inputs, generation_config):
        g = copy.deepcopy(generation_config)
        assert not g.update() and g.temperature == 0 and g.top_p is None
        assert g.alg == "maskgit_plus" and self.device == inputs.device
        x = torch.nn.functional.pad(inputs, (0, g.max_length - inputs.shape[1]), value=g.mask_token_id)
        times = torch.linspace(1, 1e-3, g.steps + 1)
        for i in range(g.steps):
            raw = self(x, "full", None).logits
            p, best = torch.cat([raw[:, :1], raw[:, :-1]], 1).softmax(-1).max(-1)
            p[x != g.mask_token_id] = -1
            masks = (x == g.mask_token_id).sum() / x.shape[0]
            count = int(masks * (1 - times[i + 1] / times[i])) if i < g.steps - 1 else int(masks)
            x.scatter_(1, p.topk(count).indices, best.gather(1, p.topk(count).indices))
        print("used time")
        return x
"""
PARTS = {
    "utils": """
class BlockIteratorFactory: pass

class KVCacheFactory:
    def __init__(self, cache_type):
        self.cache_type = cache_type
""",
    "parallel_strategy": """
class ThresholdParallelDecoder:
    def __init__(self, temperature, threshold, mask_id, eos_id):
        assert not temperature and eos_id == -1
        self.tau, self.mask_id = threshold, mask_id
""",
    "generate_uniform": """
import torch

class BlockWiseDiffusionLLM:
    def __init__(self, model, decoder, iterator_factory, early_stop, cache_factory):
        assert not early_stop
        self.model, self.decoder, self.kind = model, decoder, cache_factory and cache_factory.cache_type

    def generate(self, prompt, gen_length, block_length):
        mask_id = self.decoder.mask_id
        x, kept = torch.cat([prompt, torch.full((len(prompt), gen_length), mask_id)], 1), None
        for s in range(prompt.shape[1], x.shape[1], block_length):
            e, kept = s + block_length, None
            while (x[:, s:e] == mask_id).any():
                if self.kind is None or kept is None:
                    made = self.model(x, use_cache=self.kind is not None)
                    logits, kept = made.logits[:, s:e], getattr(made, "past_key_values", None)
                    assert kept is None or len(kept) == 8
                else:
                    end = x.shape[1] if self.kind == "prefix" else e
                    told = {"past_key_values": kept, "use_cache": True, "replace_position": (s, end)}
                    logits = self.model(x[:, s:end], **told).logits[:, :block_length]
                p, best = logits.softmax(-1).max(-1)
                p[x[:, s:e] != mask_id] = -1
                sure = (p >= (p.max(1).values - 1e-5).clamp(max=self.decoder.tau)[:, None]) & (p > 0)
                x[:, s:e] = torch.where(sure, best, x[:, s:e])
        return x
""",
}


Found = Callable[..., list[dict[str, Any]]]
ARGUMENTS = ("--vocab", "512", "--batch", "2", "--rounds", "1")


# First words of the modules that the stand-ins are.
STANDING_IN = {"generate", "generation_utils", "llada", "model", "dinfer", "compare_loops"}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Give the script as a module, with answers of two small blocks; what it imports goes with the test."""
    spec = spec_from_loader("compare_loops", SourceFileLoader("compare_loops", str(SCRIPT)))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "compare_loops", module)
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec.loader.exec_module(module)
    for name, value in (("PROMPT", 8), ("LENGTH", LENGTH), ("BLOCK", LENGTH // 2)):
        monkeypatch.setattr(module, name, value)
    yield module
    for name in [name for name in sys.modules if name.partition(".")[0] in STANDING_IN]:
        del sys.modules[name]


@pytest.fixture
def found_in(script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Found:
    """Return what calls the script, and gives what its last line says of every loop."""

    def found_in(folder: Path, *loops: str) -> list[dict[str, Any]]:
        named = [word for loop in loops or ["llada"] for word in ("--loop", loop)]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(folder), *named, *ARGUMENTS])
        script.main()
        found = json.loads(capsys.readouterr().out.splitlines()[-1])["loops"]
        assert len(found) == max(1, len(loops))
        return found

    return found_in


def written(folder: Path, files: dict[str, str]) -> None:
    """Write files of a checkout whose packages cannot be run, as where kernels and servers are missing."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "__init__.py").write_text("raise ImportError('no kernels here')")
        file.write_text(text)


def test_a_checkout_is_timed_beside_ours(tmp_path: Path, found_in: Found) -> None:
    """Guards the comparison that releases are judged by: real loops, one model, equal tokens, a floor."""
    (tmp_path / "generate.py").write_text(LOOP)
    (found,) = found_in(tmp_path)
    assert found["tokens_equal"] and found["calls"] == LENGTH and found["bar"] == 0.95
    assert 0 < found["floor"] < found["ours_over_theirs"] * 1.5


@pytest.mark.slow
def test_a_loop_that_decides_otherwise_does_not_pass(tmp_path: Path) -> None:
    """Guards ratios of loops that do not do the same, by the script as a program."""
    (tmp_path / "generate.py").write_text(LOOP.replace("argmax(1)", "argmin(1)"))
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--loop", "llada", *ARGUMENTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    (found,) = json.loads(done.stdout.splitlines()[-1])["loops"]
    assert not found["tokens_equal"] and not found["passed"]


def test_a_folder_without_the_function_is_named(tmp_path: Path, found_in: Found) -> None:
    """Guards against a traceback for a folder that was mistyped."""
    with pytest.raises(SystemExit, match=r"^[^\n]*has no generate.generate that can be imported[^\n]*$"):
        found_in(tmp_path / "nothing")


@pytest.mark.slow
def test_loops_that_keep_keys_and_values_are_timed(tmp_path: Path, found_in: Found) -> None:
    """Guards what a public loop sees of our store: a prefix that it cuts, a window in the middle, several rows."""
    written(tmp_path, {"llada/generate.py": CACHED})
    for found in found_in(tmp_path, "fast_dllm_prefix", "fast_dllm_dual"):
        assert found["tokens_equal"] and found["calls"] == found["their_calls"]


@pytest.mark.slow
def test_a_loop_that_is_mixed_into_a_model_is_timed(tmp_path: Path, found_in: Found) -> None:
    """Guards Dream's: logits shifted by one, positional arguments, and output of its own that is no JSON."""
    (tmp_path / "generation_utils.py").write_text(MIXED_IN)
    (found,) = found_in(tmp_path, "dream")
    assert found["tokens_equal"] and found["their_calls"] == LENGTH >= found["calls"]


@pytest.mark.slow
def test_a_loop_that_is_assembled_is_timed(tmp_path: Path, found_in: Found) -> None:
    """Guards dInfer's: keys and values in one list, windows named by their ends."""
    written(tmp_path, {f"python/dinfer/decoding/{name}.py": text for name, text in PARTS.items()})
    for found in found_in(tmp_path, "dinfer", "dinfer_dual"):
        assert found["tokens_equal"] and found["calls"] == found["their_calls"]
