"""What verifiers tell the host of their drafts, which nobody asks the device for again."""

from typing import Any

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.standing import told
from harness.engine.shared.records import Ledger
from tests.caches.decoding import random_model
from tests.engine.test_hot_path import laid_out, method_of

WORDS = (
    *("lopa", "lopa method.k=5", "freedave", "freedave method.threshold=0.5"),
    "freedave method/cache=dual method.drafts=tree",
    *(f"threshold method/verifier=freedave method.verifier.reach={reach}" for reach in ("across", "eager", "within")),
)


@pytest.mark.parametrize("words", WORDS)
def test_drafts_are_what_the_host_is_told(words: str, monkeypatch: pytest.MonkeyPatch):
    """Guards drafts that another row's sample is told of, and counts of windows that drafts have completed."""
    kind, method = method_of(words)
    made, propose = [], type(method.verifier).propose

    def proposing(*given: Any) -> Canvas:
        drafts = propose(*given)
        counted = [drafts.sample_B, (drafts.undecided_BL & drafts.window_BL).sum(1), drafts.held_B]
        made.append((drafts.known.get(told), [*map(list, told(drafts))], torch.stack(counted).tolist()))
        return drafts

    monkeypatch.setattr(type(method.verifier), "propose", proposing)
    with torch.inference_mode():
        decode(random_model(kind), method, laid_out(kind), Ledger())
    assert made and all(known is not None and found == counted for known, found, counted in made)
