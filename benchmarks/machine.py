"""What a measurement was made on, and how much memory a process has used."""

import os
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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


def peak_memory(device: str = "cpu") -> int:
    """Return the most memory this process has held, bytes: on the GPU for `cuda`, else resident."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # Linux; there ru_maxrss begins with what the parent process held
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
