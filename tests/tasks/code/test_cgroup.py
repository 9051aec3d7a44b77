"""Control groups, with a folder in place of the kernel's: what is looked for, written, read, and removed."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from tasks.code.sandbox import Isolation, Limits, Tier, cgroup
from tasks.code.sandbox.cgroup import Groups
from tasks.code.sandbox.confinement import Machine
from tasks.code.sandbox.supervisor import run_at

LIMITS = Limits(cpu_s=2, memory_bytes=100 << 20, work_bytes=16 << 20, processes=32)


@dataclasses.dataclass(kw_only=True)
class Kernel:
    """Plays the kernel: fills groups that are made, and keeps what is in those that are removed."""

    cpu_usec: int = 1000
    oom_kills: int = 0
    refused: int = 0
    removed: list[dict[str, str]] = dataclasses.field(default_factory=list)

    def make(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "cpu.stat").write_text(f"usage_usec {self.cpu_usec}\nuser_usec 0\nsystem_usec 0\n")
        (folder / "memory.events").write_text(f"low 0\nhigh 0\nmax 7\noom 0\noom_kill {self.oom_kills}\n")

    def remove(self, folder: Path) -> None:
        if self.refused:
            self.refused -= 1
            raise OSError("Device or resource busy")
        self.removed.append({file.name: file.read_text() for file in folder.iterdir()})
        shutil.rmtree(folder)

    def groups(self, root: Path) -> Groups:
        return Groups(root=root, make=self.make, remove=self.remove)


def about(folder: Path, *, own: str, mount: str) -> Path:
    """Return the /proc folder of a process in group `own`, to which `mount` (root and place) shows groups."""
    folder.mkdir()
    (folder / "cgroup").write_text(f"4:memory:/old\n0::{own}\n")
    (folder / "mountinfo").write_text(
        f"24 1 0:22 / /proc rw shared:3 - proc proc rw\n36 24 0:30 {mount} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
    )
    return folder


def test_bounds_are_written_and_the_group_is_emptied(tmp_path: Path) -> None:
    """Guards the total bounds: each file with its value, swap shut, and all killed at the end."""
    kernel = Kernel(refused=2)
    with kernel.groups(tmp_path).group(LIMITS) as group:
        assert group.folder.parent == tmp_path
        assert (group.cpu_s([]), group.lacks_memory([], 0)) == (0.001, False)
    (left,) = kernel.removed
    assert {name: left[name] for name in left if name not in ("cpu.stat", "memory.events")} == {
        "memory.max": str((100 + 16 + 64) << 20),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "35",
        "cgroup.procs": "",
        "cgroup.kill": "1",
    }
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_stays_is_spoken_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the machine: groups left behind in silence."""
    monkeypatch.setattr(cgroup, "_DYING_S", 0.01)
    with (
        pytest.warns(UserWarning, match=r"control group .*decbench-.* is left behind: Device or resource busy"),
        Kernel(refused=10**6).groups(tmp_path).group(LIMITS),
    ):
        pass


def test_a_failed_bound_leaves_no_group(tmp_path: Path) -> None:
    """Guards against a program that runs without bounds because a file would not be written."""

    def make(folder: Path) -> None:
        (folder / "pids.max").mkdir(parents=True)

    with pytest.raises(IsADirectoryError), Groups(root=tmp_path, make=make, remove=shutil.rmtree).group(LIMITS):
        raise AssertionError("nothing is run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("own", "mount", "groups"),
    [
        ("/user/scope", "/ {place}", ["user/scope", "user", ""]),
        ("/", "/ {place}", [""]),
        ("/box/inner", "/box {place}", ["inner", ""]),
        ("/elsewhere", "/box {place}", []),
        ("/../outside", "/box {place}", []),
    ],
)
def test_groups_around_a_process(tmp_path: Path, own: str, mount: str, groups: list[str]) -> None:
    """Guards containers, which see a part of the hierarchy only."""
    place = tmp_path / "groups"
    proc = about(tmp_path / "proc", own=own, mount=mount.format(place=place))
    assert list(cgroup.around(proc)) == [place / name for name in groups]


def test_machines_without_the_hierarchy(tmp_path: Path) -> None:
    """Guards kernels with the first version only, and systems without /proc."""
    assert list(cgroup.around(tmp_path)) == []
    proc = about(tmp_path / "proc", own="/", mount=f"/ {tmp_path}")
    (proc / "mountinfo").write_text("24 1 0:22 / /proc rw - proc proc rw\n")
    assert cgroup.find(proc) is None


def test_the_nearest_group_that_holds_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against groups without the controllers, and against those that only look as if one could write."""
    place = tmp_path / "groups"
    (place / "user" / "scope").mkdir(parents=True)
    for name, controllers in (("user/scope", "cpu pids"), ("user", "cpu memory pids"), ("", "memory pids")):
        (place / name / "cgroup.subtree_control").write_text(controllers)
    tried: list[Path] = []

    def hold(groups: Groups) -> bool:
        tried.append(groups.root)
        return groups.root == place

    monkeypatch.setattr(Groups, "hold", hold)
    found = cgroup.find(about(tmp_path / "proc", own="/user/scope", mount=f"/ {place}"))
    assert found is not None and found.root == place
    assert tried == [place / "user", place]


def test_groups_are_tried(tmp_path: Path) -> None:
    """Guards against bounds that are not there: a machine where anything fails is one without groups."""
    kernel = Kernel()
    assert kernel.groups(tmp_path).hold()
    assert kernel.removed[0]["cgroup.procs"].isdecimal()

    def rounds(folder: Path) -> None:
        kernel.make(folder)
        (folder / "memory.max").symlink_to("/dev/null")

    assert not Groups(root=tmp_path, make=rounds, remove=kernel.remove).hold()
    assert not Groups(root=tmp_path, remove=kernel.remove).hold()
    assert not Groups(root=tmp_path / "absent").hold()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kernel", "status", "detail"),
    [
        (Kernel(), "passed", ""),
        (Kernel(cpu_usec=2_000_000), "timeout", "2 s of CPU time"),
        (Kernel(oom_kills=1), "memory", "in all processes"),
    ],
)
def test_programs_are_judged_by_their_group(tmp_path: Path, kernel: Kernel, status: str, detail: str) -> None:
    """Guards the way in and the way back: the program enters, and what the kernel says of the group decides."""
    machine = dataclasses.replace(Machine.here(), groups=kernel.groups(tmp_path))
    verdict = run_at(Tier.LIMITS, "pass", LIMITS, machine)
    assert verdict.status == status and detail in verdict.detail
    assert (kernel.removed[0]["cgroup.procs"], list(tmp_path.iterdir())) == ("0", [])


def test_a_group_that_cannot_be_made_is_the_sandbox_failing(tmp_path: Path) -> None:
    """Guards the run: one program without a verdict, and a reason."""
    machine = dataclasses.replace(Machine.here(), groups=Groups(root=tmp_path / "absent"))
    verdict = run_at(Tier.LIMITS, "pass", LIMITS, machine)
    assert verdict.status == "sandbox_error" and "absent" in verdict.detail


def test_the_report_says_what_bounds_a_program() -> None:
    """Guards `decbench doctor`: which of the two bounds programs is seen."""
    here = Isolation(tier=Tier.BUBBLEWRAP, missing={}, bounds="a control group in /x bounds all processes of a program")
    assert str(here) == "tier 1 (bubblewrap); a control group in /x bounds all processes of a program"
