"""Runs the steps of a document one after the other in one process: starting each costs 5 s.

    python tests/documented_commands.py steps.json

Each step is a command line of ours (a list of words) or Python code (a text). `RUN_FOLDER` in a
command stands for the newest folder of a single run. Ends with the list of those that failed.
"""

import json
import os
import runpy
import sys
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra

RUN_FOLDER = "RUN_FOLDER"


def newest_run() -> str:
    """Return the folder in multirun/ that a single run wrote last."""
    configs = Path("multirun").glob("*/config.yaml")
    return max(configs, key=lambda file: file.stat().st_mtime_ns).parent.name


def run_command(words: list[str]) -> object:
    """Run `python <script> ...` or `python -m <module> ...`; return its exit code."""
    start = 2 if words[1] == "-m" else 1
    name, arguments = words[start], words[start + 1 :]
    sys.argv = [
        name,
        *(a.replace(RUN_FOLDER, newest_run()) if RUN_FOLDER in a else a for a in arguments),
    ]
    try:
        if words[1] == "-m":
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(name, run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    return 0


def main(steps: list[list[str] | str]) -> None:
    """Run all steps in the current folder."""
    sys.path.insert(0, os.getcwd())
    failed = []
    for step in steps:
        sys.stdout.write(f"$ {step if isinstance(step, str) else ' '.join(step)}\n")
        if isinstance(step, str):
            exec(compile(step, "<document>", "exec"), {"__name__": "__main__"})
            continue
        GlobalHydra.instance().clear()
        if code := run_command(step):
            failed.append(f"{code}: {' '.join(step)}")
    if failed:
        sys.exit("failed:\n" + "\n".join(failed))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
