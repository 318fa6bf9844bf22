"""Runs the steps of documents one after the other in one process: starting each costs 5 s.

    python tests/support/document_script.py pages.json

The file holds a list of steps for each page. A step is a pair: `command` and a command line of
ours, `python` and code, whose names the page's later steps know, or `sh` and a script. `RUN_FOLDER`
in a step stands for the newest folder of a single run. Ends with the list of those that failed.
"""

import json
import os
import runpy
import shlex
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra

RUN_FOLDER = "RUN_FOLDER"
Step = tuple[str, str]  # kind and text


def newest_run() -> str:
    """Return the folder in multirun/ that a single run wrote last."""
    configs = Path("multirun").glob("*/config.yaml")
    return max(configs, key=lambda file: file.stat().st_mtime_ns).parent.name


def run_command(line: str) -> None:
    """Run `python <script> ...` or `python -m <module> ...` in this process."""
    words = shlex.split(line)
    start = 2 if words[1] == "-m" else 1
    sys.argv = words[start:]
    GlobalHydra.instance().clear()
    if words[1] == "-m":
        runpy.run_module(words[start], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[start], run_name="__main__")


def failure(step: Step, names: dict[str, Any]) -> str | None:
    """Run a step; return why it failed, None where it did not.

    Args:
        step: the step.
        names: what the page's Python knows; it may be added to.
    """
    kind, text = step
    try:
        if RUN_FOLDER in text:
            text = text.replace(RUN_FOLDER, newest_run())
        if kind == "command":
            run_command(text)
        elif kind == "python":
            exec(compile(text, "<document>", "exec"), names)
        else:
            assert kind == "sh", kind
            # -e: a command that fails ends it.
            subprocess.run(["bash", "-e", "-c", text], check=True)
    except SystemExit as end:
        return f"exit code {end.code}" if end.code else None
    except Exception as error:  # the list at the end is to be complete
        traceback.print_exc()
        return repr(error)
    return None


def main(pages: list[list[Step]]) -> None:
    """Run all steps of all pages in the current folder."""
    sys.path.insert(0, os.getcwd())
    failed = []
    for steps in pages:
        names: dict[str, Any] = {"__name__": "__main__"}
        for step in steps:
            sys.stdout.write(f"$ {step[1]}\n")
            sys.stdout.flush()  # before what the step itself prints
            start = time.monotonic()
            if reason := failure(step, names):
                failed.append(f"{reason}: {step[1]}")
            sys.stdout.write(f"took {time.monotonic() - start:.1f} s\n")
    if failed:
        sys.exit("failed:\n" + "\n".join(failed))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
