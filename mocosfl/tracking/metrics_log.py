"""The curves of a run as one CSV file that survives kills and resumes."""

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers.logger import Logger

from mocosfl.runs.read_metrics import Row, read_metrics
from mocosfl.system.files import write_atomically


class MetricsLog(Logger):
    """Writes `metrics.csv`: a row a step at which anything was logged, a column a quantity.

    Each row is in the file as soon as it is logged: a new one is appended, and where older lines
    change the file is replaced whole. An appended row is not synced: it outlives a kill, and after
    a power cut a resumed run logs again what came after its last checkpoint. `continue_from` takes
    back what a killed run logged after its last checkpoint, so that a resumed run continues the
    same curves.
    (Lightning's CSVLogger deletes the file of an earlier run.)
    """

    def __init__(self, path: Path) -> None:
        """Open the file, keeping what is in it.

        Args:
            path: the CSV file; made when the first value comes.
        """
        super().__init__()
        self.path = path
        self._rows: list[Row] = read_metrics(path)
        self._columns = list(self._rows[0]) if self._rows else ["step"]

    @property
    def name(self) -> str:
        """Lightning's name for this logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """Lightning's version of this logger: there is one."""
        return ""

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Ignore them: the run folder holds `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write values at a step; several calls for one step share a row."""
        values = {name: f"{value:.9g}" for name, value in metrics.items() if name != "epoch"}
        if not values:
            return
        same = bool(self._rows) and self._rows[-1]["step"] == str(step)
        if not same:
            self._rows.append({"step": str(step)})
        self._rows[-1].update(values)
        new = [name for name in values if name not in self._columns]
        self._columns += new
        if new or same or not self.path.exists():
            self._rewrite()
        else:
            with self.path.open("a", newline="") as file:
                self._writer(file).writerow(self._rows[-1])

    def continue_from(self, step: int) -> None:
        """Drop what was logged at this step or later (steps are counted from 0)."""
        self._rows = [row for row in self._rows if int(row["step"]) < step]
        self._rewrite()

    def _rewrite(self) -> None:
        text = io.StringIO(newline="")
        writer = self._writer(text)
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self.path, text.getvalue())

    def _writer(self, file: Any) -> "csv.DictWriter[str]":
        return csv.DictWriter(file, self._columns, restval="")
