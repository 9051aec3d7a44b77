"""A checkpoint is found in a folder or in the filled hub cache, and a missing one names the command that gets it."""

import json
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.models import hub

HUB_ID = "owner/name"
WANTED = r"get it with `hf download owner/name`, or name a folder with model\.path=FOLDER"


def fill(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the hub client a cache of this test, and return the folder of the one snapshot in it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    repository = tmp_path / "models--owner--name"
    fill(repository / "refs", {"main": "a" * 40})
    return repository / "snapshots" / ("a" * 40)


def test_the_filled_cache_is_found_without_network(cache: Path) -> None:
    """Guards `path: null`: what `hf download` left is used, and nothing is asked for."""
    fill(cache, {"config.json": "{}", "model.safetensors": ""})
    assert hub.find("m", hub_id=HUB_ID, path=None) == cache


def test_an_empty_cache_names_the_command(cache: Path) -> None:
    """Guards the first error that a user of a published model meets."""
    with pytest.raises(ConfigError, match=rf"^model=m: owner/name is not in the hub cache of this machine; {WANTED}$"):
        hub.find("m", hub_id=HUB_ID, path=None)


def test_an_interrupted_download_is_noticed(cache: Path) -> None:
    """Guards against a failure minutes later, at the first shard that is not there."""
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}}
    fill(cache, {"config.json": "{}", "one.safetensors": "", hub.INDEX: json.dumps(index)})
    with pytest.raises(ConfigError, match=rf"1 files of weights are missing, two\.safetensors first; {WANTED}"):
        hub.find("m", hub_id=HUB_ID, path=None)


def test_a_named_folder_goes_before_the_cache(cache: Path, tmp_path: Path) -> None:
    """Guards `model.path`."""
    fill(cache, {"config.json": "{}", "model.safetensors": ""})
    mine = fill(tmp_path / "mine", {"config.json": "{}", "model.safetensors": ""})
    assert hub.find("m", hub_id=HUB_ID, path=str(mine)) == mine


@pytest.mark.parametrize(
    ("files", "message"), [(None, "no such folder"), ({}, r"holds no config\.json"), ({"config.json": ""}, "missing")]
)
def test_a_folder_that_is_no_checkpoint_is_named(files: dict | None, message: str, tmp_path: Path) -> None:
    """Guards a typo in a path."""
    folder = tmp_path / "mine" if files is None else fill(tmp_path / "mine", files)
    with pytest.raises(ConfigError, match=rf"^model\.path={folder}: .*{message}"):
        hub.find("m", hub_id=None, path=str(folder))


def test_an_index_that_is_none_is_named(tmp_path: Path) -> None:
    """Guards against a traceback out of a damaged index."""
    fill(tmp_path, {"config.json": "{}", hub.INDEX: "[]"})
    with pytest.raises(ConfigError, match="not an index of safetensors files"):
        hub.find("m", hub_id=None, path=str(tmp_path))


def test_no_name_at_all_says_what_to_give() -> None:
    """Guards models that stand for any checkpoint."""
    with pytest.raises(ConfigError, match=r"model\.path=FOLDER, or .* model\.hub_id=OWNER/NAME"):
        hub.find("m", hub_id=None, path=None)


def test_a_hub_name_without_owner_is_refused() -> None:
    """Guards against the client's own traceback."""
    with pytest.raises(ConfigError, match=r"model\.hub_id=a/b/c: "):
        hub.find("m", hub_id="a/b/c", path=None)
