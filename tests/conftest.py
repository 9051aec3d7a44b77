"""What every test gets: no network, one thread, results under its own temporary folder."""

import gc
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from harness.cli import main
from tests.offline import sitecustomize as offline

RunDecbench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse remote connections here and in every Python process that the test starts."""
    for name, method in offline.CONNECT.items():
        monkeypatch.setattr(socket.socket, name, method)
    monkeypatch.setenv("PYTHONPATH", str(Path(offline.__file__).parent), prepend=os.pathsep)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Keep the order of float additions, and the cores, the same on every machine."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture
def results_dir(tmp_path: Path) -> Path:
    """Name a folder for the store of one test, not yet made."""
    return tmp_path / "results"


@pytest.fixture
def memory_files() -> dict[str, object]:
    """Empty the file system in memory, which all tests of a process share, and return its files."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return MemoryFileSystem.store


@pytest.fixture
def run_decbench(tmp_path: Path) -> RunDecbench:
    """Run the real command in a process of its own: `run_decbench("list", "methods")`, in `tmp_path`."""

    def run(*arguments: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    return run


@pytest.fixture
def call_decbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunDecbench:
    """Do what `run_decbench` does in this process, without the seconds that a new one takes to start."""

    def call(*arguments: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        code = main(arguments)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return call


def pytest_configure() -> None:
    """Look for garbage less often: it took a fifth of the time in which tests are collected."""
    gc.set_threshold(50_000, 20, 50)


def pytest_collection_finish() -> None:
    """Look through what is imported no more: it took a twentieth of the time of the tests."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer to rewrite recorded outputs, for review in the diff."""
    parser.addoption("--update-golden", action="store_true", help="rewrite the recorded outputs of golden tests")
