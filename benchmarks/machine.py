"""What a measurement was made on, and how much memory a process has used."""

import contextlib
import os
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]


def describe_machine(device: str, num_threads: int) -> dict[str, Any]:
    """Return processor, cores, threads, GPU and versions, by name.

    Args:
        device: `cpu` or `cuda`.
        num_threads: that each contestant computes on.
    """
    import torch  # here, so that the module is light for whoever measures the import of torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": num_threads,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def describe_run() -> dict[str, str]:
    """Return date, commit and command line, by name."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "command": " ".join(["python", "-m", _module(), *sys.argv[1:]]),
    }


class Memory(NamedTuple):
    """What a process has held, bytes."""

    peak_bytes: int  # on the GPU for `cuda`, else resident
    # Without the pages of files: libraries, and images that are mapped and not read in. The system
    # keeps those pages anyway, shares them between processes and drops them when it is short.
    own_bytes: int


def memory(device: str = "cpu") -> Memory:
    """Return the most this process has held since its start, or since `forget_peak`."""
    if device == "cuda":
        import torch

        peak = torch.cuda.max_memory_allocated()
        return Memory(peak, peak)
    status = Path("/proc/self/status")
    if status.is_file():  # Linux; there ru_maxrss begins with what the parent process held
        sizes = dict(line.split(":", 1) for line in status.read_text().splitlines())
        peak, files = (1024 * int(sizes[key].split()[0]) for key in ("VmHWM", "RssFile"))
        return Memory(peak, peak - files)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Memory(peak, peak)


def forget_peak(device: str = "cpu") -> None:
    """Let the next peak be of what happens from now on; on the CPU on Linux alone."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """Return the commit, and whether the tree differs from it."""
    commit = _git("rev-parse", "--short", "HEAD")
    return (
        f"{commit} + changes" if commit and _git("status", "--porcelain") else commit or "unknown"
    )


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:  # no git on this machine
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _module() -> str:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return spec.name if spec is not None else Path(sys.argv[0]).stem
