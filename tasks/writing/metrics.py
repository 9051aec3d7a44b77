"""Measures of written text. One that cannot be computed here is None; none is guessed."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from functools import cache
from typing import Any

from harness.errors import ConfigError, MissingDependency

NO_SERVER = "no LanguageTool server was named; start one and give task.language_tool=http://localhost:8081"
NO_BERTSCORE = "BERTScore needs the weights of its encoder, which decbench does not fetch"
_TIMEOUT_S = 60.0
_ROUGE = ("rouge1", "rouge2", "rougeL")


def mistakes(text: str, server: str) -> int:
    """Return how many matches of its rules for en-US a LanguageTool server finds in a text (POST /v2/check).

    Raises ConfigError naming task.language_tool where there is no such server.
    """
    form = urllib.parse.urlencode({"language": "en-US", "text": text}).encode()
    # The user named this address: no proxy may stand in for it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{server.rstrip('/')}/v2/check", form, timeout=_TIMEOUT_S) as reply:
            return len(json.load(reply)["matches"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"task.language_tool={server}: no answer of a LanguageTool server ({' '.join(str(error).split())[:200]}); "
            f"start one, such as java -cp languagetool-server.jar org.languagetool.server.HTTPServer --port 8081"
        ) from error


def grammatical(text: str, server: str) -> bool:
    """Tell whether a text is not empty and breaks no rule."""
    return bool(text.strip()) and mistakes(text.strip(), server) == 0


def includes(text: str, words: Sequence[str], *, plural: bool = False, compat: bool = False) -> bool:
    """Tell whether every word stands in a text: whole and in any case; `plural` allows an s or es behind it.

    `compat` is the published test, a substring in the very case: it finds "cat" in "category".
    """
    if compat:
        return all(word in text for word in words)
    end = "(?:e?s)?" if plural else ""
    return all(re.search(rf"(?<!\w){re.escape(word)}{end}(?!\w)", text, re.IGNORECASE) for word in words)


def rouge(text: str, reference: str) -> dict[str, float]:
    """Return the F1 of ROUGE-1, ROUGE-2 and ROUGE-L with stemming (Lin 2004)."""
    scores = _rouge_scorer().score(reference.strip(), text.strip())
    return {name: float(scores[name].fmeasure) for name in _ROUGE}


def inverse_bleu(text: str, source: str) -> float:
    """Return 1 - BLEU of a paraphrase against its source: up to 4-grams, tokens of 13a, no smoothing; 0 for no text."""
    if not text.strip():
        return 0.0
    return 1.0 - _bleu().sentence_score(text.strip(), [source]).score / 100.0


def require() -> None:
    """Raise MissingDependency if the packages of `rouge` and `inverse_bleu` are not installed."""
    _rouge_scorer()
    _bleu()


@cache
def _rouge_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingDependency("ROUGE needs the package rouge-score: pip install 'decbench[writing]'") from error
    return RougeScorer(list(_ROUGE), use_stemmer=True)


@cache
def _bleu() -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise MissingDependency("BLEU needs the package sacrebleu: pip install 'decbench[writing]'") from error
    return BLEU(smooth_method="none", effective_order=False, tokenize="13a")
