"""What a supervisor makes of the memory in which a program leaves its verdict, and of the folder that it leaves."""

import os
from pathlib import Path

import pytest

from tasks.code.sandbox import Limits
from tasks.code.sandbox.folder import is_full, remove
from tasks.code.sandbox.verdict import Ending, read_ending

NONCE = "0123456789abcdef"


def line(left: bytes, *, code: int = 0) -> str:
    """Return what an attendant tells of a program that left some bytes."""
    return f"ended {code} 0.250 7 {left.ljust(256, bytes(1)).hex()}\n"


@pytest.mark.parametrize(
    ("left", "status", "detail"),
    [
        (b"0123456789abcdef passed ", "passed", ""),
        (b"0123456789abcdef wrong_answer one is\nnot two", "wrong_answer", "one is\nnot two"),
        (b"0123456789abcdef error:KeyError 'k'", "error:KeyError", "'k'"),
        (b"0123456789abcdef error:\xc3\xa9 ", "error:é", ""),
        (b"", None, ""),
        (b"passed ", None, ""),
        (b"0123456789abcdee passed ", None, ""),
        (b"0123456789abcdef", None, ""),
        (b"0123456789abcdef pass", None, ""),
        (b"0123456789abcdef sandbox_error gone", None, ""),
        (b"0123456789abcdef timeout ", None, ""),
        (b"0123456789abcdef passed: ", None, ""),
        (b"0123456789abcdef passed:x ", None, ""),
        (b"0123456789abcdef error: ", None, ""),
        (b"0123456789abcdef error:a\nb ", None, ""),
        (b"\xff" * 256, None, ""),
        (b"\xc3\xa9" * 128, None, ""),
        (b"0123456789abcdef  passed", None, ""),
    ],
)
def test_a_verdict_is_whole_or_none(left: bytes, status: str | None, detail: str) -> None:
    """Guards the run against what a program may write: nothing but a verdict decides, and nothing raises."""
    ending = read_ending(line(left), NONCE)
    assert ending is not None
    assert (ending.status, ending.code, ending.cpu_s, ending.files) == (status, 0, 0.25, 7)
    assert status is None or ending.detail == detail


def test_a_program_without_verdict_has_its_exit_code() -> None:
    """Guards crashes: the signal is what explains them."""
    assert read_ending(line(b"", code=-11), NONCE) == Ending(code=-11, cpu_s=0.25, files=7, status=None, detail="")
    assert read_ending("", NONCE) is None
    assert read_ending("ended", NONCE) is None


def nest(folder: Path, depth: int) -> None:
    """Make folders in folders below one, deeper than a path may be long."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 200, dir_fd=here)
        deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)


def test_any_folder_is_removed(tmp_path: Path) -> None:
    """Guards the disk: depth, modes, links and pipes must not keep a folder."""
    folder, kept = tmp_path / "work", tmp_path / "kept"
    kept.mkdir()
    folder.mkdir()
    nest(folder, 1100)
    for number in range(20):
        (folder / "wide" / str(number) / "inner").mkdir(parents=True)
    (folder / "link").symlink_to(kept)
    (folder / "wide" / "loop").symlink_to("..")
    os.mkfifo(folder / "wide" / "pipe")
    (folder / "wide" / "0").chmod(0)
    (folder / "wide").chmod(0)
    folder.chmod(0)
    remove(str(folder))
    remove(str(folder))
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.parametrize(
    ("limits", "full"),
    [
        (Limits(), False),
        (Limits(files=62), False),
        (Limits(files=61), True),
        (Limits(work_bytes=(64 << 10) - 1), True),
    ],
)
def test_a_folder_is_measured_at_any_depth(tmp_path: Path, limits: Limits, full: bool) -> None:
    """Guards the disk against what lies deeper than a path or a stack of calls goes."""
    nest(tmp_path, 60)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_bytes(bytes(64 << 10))
    assert is_full(str(tmp_path), limits) is full
    remove(str(tmp_path / ("d" * 200)))


def test_a_tree_of_too_many_branches_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the harness's own descriptors: a comb of folders would take one for each tooth."""
    monkeypatch.setattr("tasks.code.sandbox.folder._BRANCHES", 8)
    here = tmp_path
    for _ in range(20):
        for tooth in range(9):
            (here / str(tooth) / "0").mkdir(parents=True)
        here = here / "0" / "0"
    before = len(os.listdir("/proc/self/fd"))
    assert is_full(str(tmp_path), Limits(files=10_000))
    assert len(os.listdir("/proc/self/fd")) == before
