"""Ctrl-C and SIGTERM: a run ends behind the step that it is in, with a checkpoint."""

import logging
import multiprocessing
import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from mocosfl.config.schema import Config
from mocosfl.federation.step_input import Step
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.resuming import how_to_go_on
from mocosfl.training.callbacks.after_step import AfterStep
from mocosfl.training.callbacks.alarm import Alarm
from mocosfl.training.callbacks.checkpoints import save_if_finite
from mocosfl.training.module import MocoSFL

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption(AfterStep):
    """Ends a run that is interrupted so that nothing is lost, and says how to go on with it.

    A second signal ends it at once. Where others take part in a step, other processes of the run or
    other machines, the first one does, because the step may wait for them without end; and so it
    does in a job of a parallel sweep, which is ended from outside.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        *,
        at_step_end: bool,
        unless_suspicious: Alarm | None = None,
    ) -> None:
        """Keep the settings.

        Args:
            folder: of the run.
            config: of the run.
            at_step_end: whether the first signal lets the step end; else it ends the run at once.
            unless_suspicious: nothing is saved while this alarm suspects a collapse.
        """
        self.folder, self.config, self.alarm = folder, config, unless_suspicious
        self.at_step_end = at_step_end
        self.requested: int | None = None  # signal
        self._before: dict[int, Any] = {}  # handlers
        self._told = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take signals as requests from now on."""
        # Python lets the main thread alone have handlers.
        main_thread = threading.current_thread() is threading.main_thread()
        # A worker of joblib's is killed as soon as Ctrl-C reaches the process that waits for it.
        own_process = multiprocessing.current_process().name == "MainProcess"
        if self.at_step_end and main_thread and own_process:
            # What is ignored stays so, as Ctrl-C by what a script has started in the background.
            heard = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._request) for number in heard}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            raise SystemExit(128 + number)
        self.requested = number
        log.info("stopping behind this step; press Ctrl-C again to stop at once")

    def after_step(self, trainer: pl.Trainer, module: MocoSFL, batch: Step) -> None:
        """End the run where that was asked for; it comes behind what logs and saves a step."""
        if self.requested is None:
            return
        if self.alarm is None or self.alarm.suspicious_since is None:
            save_if_finite(trainer, self.folder.last, weights_only=False)
        self._tell(trainer)
        # Not an error of the run: a sweep ends with it, as the shell expects of the signal.
        raise SystemExit(128 + self.requested)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back, and say how to go on with a run that was ended at once."""
        self._give_back()
        if isinstance(exception, (KeyboardInterrupt, SystemExit)) and not self._told:
            self._tell(trainer)

    def _tell(self, trainer: pl.Trainer) -> None:
        self._told = True
        log.info("stopped at step %d", trainer.global_step)
        log.info("%s", how_to_go_on(self.config, self.folder))
