"""Save a W&B workspace for a project's runs: `python -m mocosfl.dashboard --entity <team or user>`.

The layout is made without a network; saving it needs the account. Each call saves a new view and
changes nothing that is there.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mocosfl.system.files import write_atomically

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace


def main(arguments: Sequence[str]) -> None:
    """Save the dashboard, or write its layout."""
    chosen = _parsed(arguments)
    try:  # the library of the extra is not everybody's
        from mocosfl.tracking.dashboard_layout import make_dashboard
    except ModuleNotFoundError as error:
        sys.exit(
            f"\nmocosfl: {error.name} is not installed; install it with "
            "pip install -e '.[dashboard]'"
        )
    dashboard = make_dashboard(chosen.entity, chosen.project)
    if chosen.layout is None:
        print(f"dashboard: {_save(dashboard)}")
        return
    layout = dashboard._to_model().model_dump(by_alias=True, exclude_none=True)  # what is saved
    _write(chosen.layout, json.dumps(layout, indent=1) + "\n")
    print(f"layout: {chosen.layout}")


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mocosfl.dashboard", description=__doc__)
    parser.add_argument("--entity", required=True, help="W&B team or user")
    parser.add_argument("--project", default="mocosfl", help="W&B project; default: mocosfl")
    parser.add_argument(
        "--layout", type=Path, metavar="FILE", help="write the layout as JSON in place of saving it"
    )
    return parser.parse_args(arguments)


def _write(file: Path, text: str) -> None:
    try:
        if file.is_dir():
            raise IsADirectoryError("a folder")
        write_atomically(file, text)
    except OSError as error:
        sys.exit(
            f"\nmocosfl: --layout={file}: cannot be written ({error}); name another file, as in "
            "--layout=layout.json"
        )


def _save(dashboard: "Workspace") -> str:
    """Save as a new view; returns its address."""
    import wandb

    try:
        dashboard.save_as_new_view()  # type: ignore[no-untyped-call]
        return str(dashboard.url)
    except (wandb.errors.Error, ValueError, OSError) as error:
        sys.exit(
            f"\nmocosfl: W&B refuses ({error}); run `wandb login` or set WANDB_API_KEY, and see "
            "that --entity and --project are right; --layout FILE needs no account"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
