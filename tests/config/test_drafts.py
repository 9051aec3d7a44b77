"""The model that drafts: told from its target, of one vocabulary with it, and refused where it is not."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from harness.config.build import load_model
from harness.config.compatibility import check
from harness.config.composition import compose
from harness.config.drafts import refuse_other, refuse_other_files
from harness.engine.shared.model import Models
from harness.errors import ConfigError
from harness.models.text import TextTokenizer
from harness.runs.runner import run

WORDS = ["<s>", "a", "b"]
FAMILY = "use a smaller model of the same family"


def written(folder: Path, words: list[str]) -> dict[str, object]:
    """Write a tokenizer of words; return a model's config with it."""
    folder.mkdir()
    inner = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<s>"))
    inner.save(str(folder / "tokenizer.json"))
    return {"name": folder.name, "tokenizer": "text", "path": str(folder)}


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (WORDS, None),
        (["<s>", "a", "c"], "its token 2 is 'c', that of model=large is 'b'"),
        ([*WORDS, "c"], "its token 3 is 'c', that of model=large is none"),
        (WORDS[:2], "its token 2 is none, that of model=large is 'b'"),
    ],
)
def test_a_draft_of_other_tokens_is_refused(tmp_path: Path, words: list[str], refusal: str | None):
    """Guards tokens against being taken for others: before a model is loaded where files tell, else behind that."""
    models = {"target": written(tmp_path / "large", WORDS), "draft": written(tmp_path / "small", words)}
    target, draft = (
        TextTokenizer(
            PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / name / "tokenizer.json"), eos_token="<s>"),
            where=name,
            stop_ids=(0,),
        )
        for name in ("large", "small")
    )
    for look in (lambda: refuse_other_files(models), lambda: refuse_other(models, target, draft)):
        if refusal is None:
            look()
            continue
        with pytest.raises(ConfigError) as error:
            look()
        assert str(error.value).startswith(f"model@draft=small: {refusal};") and str(error.value).endswith(FAMILY)


def test_a_draft_that_is_not_here_is_told_by_its_own_keys(tmp_path: Path):
    """Guards the remedy: the folder is the draft's, and another one for the target would change nothing."""
    cfg = compose(["model=tiny_ar", "method=speculative", "model@draft=tiny_ar_draft", "+draft.loader.sed=1"])
    with pytest.raises(ConfigError, match=r"^draft\.loader\._target_=harness\.models\.embedded\.load: .*'sed'"):
        check(cfg)


def test_both_models_are_loaded_and_the_same_one_once():
    """Guards what a run decodes with: the target in front, and no second copy of a model that drafts for itself."""
    asked = ["model=tiny_ar", "method=speculative"]
    loaded = load_model(compose([*asked, "model@draft=tiny_ar_draft"]))
    assert isinstance(loaded.model, Models) and loaded.beside.keys() == {"draft"}
    assert (loaded.model.spec.name, loaded.model.draft.spec.name) == ("tiny_ar", "tiny_ar_draft")
    assert (loaded.model.spec.layers, loaded.model.draft.spec.layers) == (4, 2)
    own = load_model(compose([*asked, "model@draft=tiny_ar"])).model
    assert isinstance(own, Models) and own.target is own.draft


def test_a_run_stores_its_draft_and_its_calls(results_dir: Path):
    """Guards the way through a run: two settings of two drafts, the same answers, and calls of a draft apart."""
    asked = ["model=tiny_ar", "method=speculative", "task=list_sort", "task.samples=2", "batch_size=2"]
    asked += [f"results_dir={results_dir}", "measure=traced"]
    rows = [run(compose([*asked, f"model@draft={name}"])).row for name in ("tiny_ar", "tiny_ar_draft")]
    assert [row["setting"] for row in rows] == [f"speculative draft={name}" for name in ("tiny_ar", "tiny_ar_draft")]
    assert [row["model"] for row in rows] == ["tiny_ar", "tiny_ar"]
    assert all(row["accuracy"] == 1 and row["nfe_draft"] > row["nfe"] > 0 for row in rows)
    assert len({row["setting_id"] for row in rows}) == 2
