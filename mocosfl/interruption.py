"""Ctrl-C and SIGTERM: a run ends behind the step that it is in, with a checkpoint."""

import logging
import shlex
import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from mocosfl.alarm import Alarm
from mocosfl.callbacks import save_if_finite
from mocosfl.run_folder import RunFolder

log = logging.getLogger(__name__)


class Interruption(Callback):
    """Ends a run that is interrupted so that nothing is lost, and says how to go on with it.

    A second Ctrl-C ends it at once. Where others take part in a step (`at_step_end` false), the
    first one does, because the step may wait for them without end.
    """

    def __init__(
        self, folder: RunFolder, *, at_step_end: bool, unless_suspicious: Alarm | None = None
    ) -> None:
        """Keep the settings.

        Args:
            folder: of the run.
            at_step_end: whether to wait for the end of the step; only in a process that is alone.
            unless_suspicious: nothing is saved while this alarm suspects a collapse.
        """
        self.folder, self.at_step_end, self.alarm = folder, at_step_end, unless_suspicious
        self.requested = False
        self._before: Any = None  # handler of Ctrl-C

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take Ctrl-C as a request from now on."""
        # Python lets the main thread alone have handlers, and has given it one for Ctrl-C.
        main = threading.current_thread() is threading.main_thread()
        if self.at_step_end and main:
            self._before = signal.signal(signal.SIGINT, self._request)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give Ctrl-C back."""
        self._give_back()

    def _give_back(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        log.info("stopping behind this step; press Ctrl-C again to stop at once")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """End the run where that was asked for; it comes behind what logs and saves a step."""
        if not self.at_step_end or trainer.global_step == trainer.max_steps:
            return
        terminated = trainer.received_sigterm  # Lightning's handler only takes note
        if not (self.requested or terminated):
            return
        if self.alarm is None or self.alarm.suspicious_since is None:
            save_if_finite(trainer, self.folder.last, weights_only=False)
        self._tell(trainer)
        # Not an error of the run: a sweep ends with it, as the shell expects of the signal.
        raise SystemExit(128 + (signal.SIGTERM if terminated else signal.SIGINT))

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give Ctrl-C back, and say how to go on with a run that was ended at once."""
        self._give_back()
        if isinstance(exception, KeyboardInterrupt):
            self._tell(trainer)

    def _tell(self, trainer: pl.Trainer) -> None:
        folder = shlex.quote(str(self.folder.path))
        log.info(
            "stopped behind step %d; go on with: python train.py resume=%s",
            trainer.global_step,
            folder,
        )
