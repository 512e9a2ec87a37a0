"""The memory that can still be had under the limits of control groups, by files as the kernel writes them."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.inference.device import host_memory
from models.inference.device.devices import free_bytes

GIB = 2**30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the groups are, of a machine with 24 GiB available."""
    for name in ("MEMINFO", "OWN_GROUPS", "GROUPS"):
        monkeypatch.setattr(host_memory, name, tmp_path / name)
    (tmp_path / "MEMINFO").write_text(f"MemTotal: 30000000 kB\nMemAvailable: {24 * 2**20} kB\n")
    return tmp_path / "GROUPS"


def second(group: Path, limit: str, usage: int, droppable: int = 0) -> None:
    """A group of the second version."""
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{usage}\n")
    (group / "memory.stat").write_text(
        f"anon {usage - droppable}\ninactive_file {droppable}\nactive_file 0\n"
    )


def first(group: Path, limit: int, usage: int, droppable: int) -> None:
    """A group of the first version."""
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (group / "memory.usage_in_bytes").write_text(f"{usage}\n")
    (group / "memory.stat").write_text(
        f"inactive_file 1\nactive_file 1\ntotal_inactive_file {droppable}\ntotal_active_file 0\n"
    )


def test_without_groups_it_is_what_the_machine_has(groups: Path) -> None:
    assert host_memory.host_free_bytes() == 24 * GIB


def test_tightest_of_nested_groups_counts_and_pages_of_files_are_free(groups: Path) -> None:
    (groups.parent / "OWN_GROUPS").write_text("0::/system.slice/zturbo.service/worker\n")
    second(groups / "system.slice", str(16 * GIB), 6 * GIB)
    second(groups / "system.slice" / "zturbo.service", str(12 * GIB), 8 * GIB, 3 * GIB)
    second(groups / "system.slice" / "zturbo.service" / "worker", "max", 2 * GIB)
    assert host_memory.host_free_bytes() == 7 * GIB


def test_first_version_of_groups_counts_as_well(groups: Path) -> None:
    (groups.parent / "OWN_GROUPS").write_text("5:devices:/\n4:memory:/docker/abc\n1:cpu,cpuacct:/\n0::/\n")
    first(groups / "memory", 2**63 - 4096, 20 * GIB, 0)
    first(groups / "memory" / "docker" / "abc", 8 * GIB, 6 * GIB, GIB)
    assert host_memory.host_free_bytes() == 3 * GIB


def test_container_sees_its_own_group_as_the_root(groups: Path) -> None:
    (groups.parent / "OWN_GROUPS").write_text("0::/\n")
    second(groups, str(4 * GIB), 5 * GIB)
    assert host_memory.host_free_bytes() == 0


def test_what_pytorch_keeps_of_a_gpu_for_reuse_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 60)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 25)
    assert free_bytes("cuda") == 45


def test_of_a_macs_memory_a_third_is_left_to_others(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (groups.parent / "MEMINFO").unlink()
    sizes = {"SC_PHYS_PAGES": 2**20, "SC_PAGE_SIZE": 2**14}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    assert free_bytes("cpu") == pytest.approx(16 * GIB * 2 / 3, abs=1)
    # What Metal has told on such a machine.
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 11_453_251_584)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 453_251_584)
    assert free_bytes("mps") == 11 * 10**9


TAKES_AND_FREES = """
import ctypes, resource, sys
from models.inference.device.host_memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.memset.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
libc.free.argtypes = (ctypes.c_void_p,)

def block():
    parts = [libc.malloc(size := 20 * 2**20) for _ in range(4)]
    for part in parts:
        libc.memset(part, 1, size)
    for part in parts:
        libc.free(part)

if sys.argv[1] == "kept":
    keep_freed_memory()
block(), block()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told")
def test_what_a_block_has_freed_is_there_for_the_next_without_a_page_fault() -> None:
    def faults(how: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", TAKES_AND_FREES, how], text=True))

    assert faults("given back") > 1000
    assert faults("kept") < 100
