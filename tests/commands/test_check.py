"""What breaks a promise is named, with the command that shows it; what keeps them passes."""

import json
from pathlib import Path

import pytest

from harness.config.plugin_folders import VARIABLE
from tests.conftest import RunDecbench

HEAD = "import torch\nfrom dataclasses import replace\nfrom harness.engine.shared.policy import policy\n"
SELECTOR = HEAD + '@policy("method/selector", "wrong")\nclass Wrong:\n'
CHOOSE = "    def __call__(self, candidates, open_BL, quota_B, canvas):\n"
REVISER = HEAD + '@policy("method/reviser", "wrong")\nclass Wrong:\n'
REVISE = "    def __call__(self, canvas, prediction, candidates, commit_BL):\n"
SCORER = HEAD + "from methods.diffusion.llada import Confidence\n" + '@policy("method/scorer", "wrong")\nclass Wrong:\n'
WRONG = {
    "mask": (
        SCORER + "    def __call__(self, prediction, canvas):\n        made = Confidence()(prediction, canvas)\n"
        "        return replace(made, tokens_BL=torch.full_like(made.tokens_BL, canvas.mask_id))\n",
        "has committed masks, at places 0, 1, 2, 3, 4, ...",
    ),
    "batch": (
        SELECTOR + CHOOSE + "        sure_BL = candidates.confidence_BL\n"
        "        return open_BL & (sure_BL >= sure_BL[open_BL].mean())\n",
        "decoded in batches of 1",
    ),
    "batch ": (
        "from harness.engine.shared.prediction import top\n" + SELECTOR + CHOOSE
        + "        key, odd_B = 'wrong.count_B', canvas.tokens_BL[:, 1] % 2\n"
        "        before_B = canvas.memory[key] if key in canvas.memory else odd_B + 2\n"
        "        canvas.memory[key] = count_B = (before_B + odd_B).clamp(1, 6)\n"
        "        return top(candidates.score_BL, open_BL, count_B)\n",
        "that begins beside others",
    ),
    "determinism": (
        SELECTOR + CHOOSE + "        return open_BL & (torch.rand(open_BL.shape) < 0.5)\n",
        "decoded again",
    ),
    "progress": (
        REVISER + REVISE + "        canvas.remask(canvas.committed_BL)\n",
        "a policy takes back, holds or idles without end",
    ),
    "given": (
        REVISER + REVISE + "        canvas.tokens_BL = canvas.tokens_BL.index_fill(1, torch.tensor([0]), 3)\n",
        "the prompt of row 0 was changed",
    ),
    "given ": (
        REVISER + REVISE + "        third_BL = (canvas.place_BL == 9) & ~canvas.undecided_BL\n"
        "        canvas.tokens_BL = canvas.tokens_BL.masked_fill(third_BL, 3)\n",
        "the token given at place 9 of row 0 was changed",
    ),
    "counting": (
        REVISER + REVISE + "        pass\n"
        + HEAD + "from harness.engine.shared.model import ForwardRequest\n"
        + '@policy("method/cache", "wrong")\nclass Hidden:\n'
        "    def evaluate(self, request):\n"
        "        request.model.forward(ForwardRequest(request.canvas.tokens_BL, select_N=request.position_N[:1]))\n"
        "        return request.forward_whole()\n",
        "the model was called",
    ),
    "counting ": (
        HEAD + "from harness.engine.shared.model import ForwardRequest\n"
        + '@policy("method/cache", "wrong")\nclass Lean:\n'
        "    def evaluate(self, request):\n"
        "        logits_NV = request.forward_whole()\n"
        "        last = request.ledger.records[-1]\n"
        "        request.ledger.records[-1] = replace(last, query_B=last.query_B // 2)\n"
        "        return logits_NV\n",
        "positions went through the layers, summed over these,",
    ),
}  # fmt: skip
OPTION = "defaults: [threshold, {parts}, _self_]\nsummary: Wrong.\nmodels: [masked_diffusion]\nthreshold: 0.5\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a folder of parts, not yet made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "parts"


@pytest.mark.parametrize("rule", WRONG)
def test_a_wrong_part_is_named(rule: str, folder: Path, call_decbench: RunDecbench):
    """Guards each rule against a part that breaks it, and the command that shows it."""
    text, said = WRONG[rule]
    (folder / "conf" / "method").mkdir(parents=True)
    (folder / "my_wrong.py").write_text(text)
    slots = [slot for slot in ("selector", "scorer", "reviser", "cache") if f"method/{slot}" in text]
    parts = ", ".join(f"override {slot}: wrong" for slot in slots)
    (folder / "conf" / "method" / "wrong.yaml").write_text(OPTION.format(parts=parts))
    words = ("check", "method=wrong", f"rule={rule.strip()}", "kind=masked_diffusion")
    process = call_decbench(*words, "--config-dir", str(folder))
    assert process.returncode == 1, process.stdout + process.stderr
    assert f"broken: {rule.strip()}: " in process.stdout and said in process.stdout
    assert f"  see: decbench check method=wrong kind=masked_diffusion rule={rule.strip()}\n" in process.stdout
    assert process.stdout.count("  see: ") == 1, "what a method breaks alone is not told again of every cache"


@pytest.mark.parametrize("claims", [True, False])
def test_what_says_that_it_is_lossless_is_compared(claims: bool, folder: Path, call_decbench: RunDecbench):
    """Guards the promise of methods with drafts, against a verifier that rewrites what was decided."""
    (folder / "conf" / "method").mkdir(parents=True)
    (folder / "my_wrong.py").write_text(
        "import torch\nfrom harness.engine.shared.policy import policy\n"
        '@policy("method/verifier", "wrong")\nclass Wrong:\n'
        "    def ahead(self, canvas):\n        return None\n"
        "    def propose(self, canvas, prediction, stepped, step):\n        return stepped\n"
        "    def accept(self, drafts, prediction, step, observe):\n"
        "        drafts.edit(drafts.committed_BL, torch.full_like(drafts.tokens_BL, 40))\n"
        "        return drafts, prediction\n"
    )
    option = OPTION.format(parts="override verifier: wrong") + f"lossless: {str(claims).lower()}\n"
    (folder / "conf" / "method" / "wrong.yaml").write_text(option)
    process = call_decbench(
        "check", "method=wrong", "kind=masked_diffusion", "rule=lossless", "--config-dir", str(folder)
    )
    if claims:
        assert process.returncode == 1 and "broken: lossless: row 0 differs from what it is without" in process.stdout
    else:
        assert process.returncode == 2 and "there is nothing to try" in process.stderr


def test_a_part_that_keeps_the_rules_passes(call_decbench: RunDecbench):
    """Guards a method beside FreeDave and the caches that it is not refused, and the output for programs."""
    process = call_decbench("check", "method=dus", "kind=block_diffusion", "--json")
    told = json.loads(process.stdout)
    assert process.returncode == 0 and told["broken"] == 0
    tried = {(one["rule"], one["subject"]) for one in told["rules"]}
    assert {("batch", "method=dus kind=block_diffusion"),
            ("freedave", "method=dus method/verifier=freedave kind=block_diffusion"),
            ("given", "method=dus method/cache=block_causal kind=block_diffusion")} <= tried  # fmt: skip


@pytest.mark.parametrize("words", ["cache=prefix kind=block_diffusion", "task=list_sort", "model=random_mdm",
                                   "model=tiny_ar", "method=ar_sample"])  # fmt: skip
def test_other_parts_are_held_to_promises(words: str, call_decbench: RunDecbench):
    """Guards caches, tasks and models of ours."""
    process = call_decbench("check", *words.split())
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "names no part; write method=NAME"),
        ("method=treshold", "no such method; did you mean threshold?"),
        ("cache=dul", "cache=dul: no such cache; did you mean dual?"),
        ("method=ar_greedy kind=masked_diffusion", "kind=masked_diffusion: method=ar_greedy does not claim it"),
        ("task=list_sort rule=batches", "there is nothing to try"),
    ],
)
def test_what_cannot_be_checked_is_refused(words: str, said: str, call_decbench: RunDecbench):
    """Guards against a check that tries nothing and passes."""
    process = call_decbench("check", *words.split())
    assert process.returncode == 2 and said in process.stderr and len(process.stderr.splitlines()) == 1
