"""Freed memory that stays with the process."""

import subprocess
import sys

import pytest

from mocosfl.system.device import keep_freed_memory

FAULTS = """
import resource
import sys

import torch

from mocosfl.system.device import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()


def step():
    # 64 MB each, beyond what glibc takes from its heap by default.
    return len([torch.ones(2**24) for _ in range(5)])


for _ in range(3):  # the first steps fetch their pages either way
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    """Return the pages that five steps of 320 MB fetch anew, in a process of its own."""
    command = [sys.executable, "-c", FAULTS, mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_memory_that_is_kept_costs_no_new_pages() -> None:
    kept, given_back = page_faults("keep"), page_faults("give back")
    assert kept < given_back / 10, (kept, given_back)


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mocosfl.system.device.ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
