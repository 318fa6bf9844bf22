"""Lightning's DDP for a pool that is spread over processes.

The server's gradients are added up over the processes; the heads of the clients are each process's
own, and DDP never sees them. A checkpoint is that of one process: rank 0 writes the heads of the
whole pool, in the order of the pool, and each process takes its own out of it.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mocosfl.federation.client_pool import ClientPool
from mocosfl.federation.optimizer import CLIENTS
from mocosfl.federation.ranks import Ranks
from mocosfl.runs.checkpoint_content import OPTIMIZERS, STACKS, STATE
from mocosfl.training.module import MocoSFL
from mocosfl.training.processes.workers import failure_time

ADDRESS = "127.0.0.1"  # all processes are on one machine
# Rank 0 measures the kNN monitor alone while the others wait for it.
TIMEOUT = timedelta(hours=1)

# What Lightning leaves in the environment for the processes that it would start itself.
VARIABLES = ("MASTER_ADDR", "MASTER_PORT")


def free_port() -> int:
    """Return a port that nobody listens to now."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
    return port


class OwnProcesses(ClusterEnvironment):
    """Tells Lightning of the processes that we have started on this machine."""

    def __init__(self, ranks: Ranks, port: int) -> None:
        """Keep who this is.

        Args:
            ranks: the process among all.
            port: where the processes find each other.
        """
        super().__init__()
        self.ranks, self.port = ranks, port
        self._before = {name: os.environ.get(name) for name in VARIABLES}

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning is to start none."""
        return True

    @property
    def main_address(self) -> str:
        """Where rank 0 is."""
        return ADDRESS

    @property
    def main_port(self) -> int:
        """Where rank 0 listens."""
        return self.port

    @staticmethod
    def detect() -> bool:
        """Never found by itself, always given."""
        return False

    def world_size(self) -> int:
        """Processes of the run."""
        return self.ranks.number

    def set_world_size(self, size: int) -> None:
        """Known already."""

    def global_rank(self) -> int:
        """Of this process."""
        return self.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """Known already."""

    def local_rank(self) -> int:
        """Of this process on its machine, the only one."""
        return self.ranks.rank

    def node_rank(self) -> int:
        """Of the machine."""
        return 0

    def teardown(self) -> None:
        """Leave the environment as it was; another run may follow in this process."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class PlainTermination(Callback):
    """Lets SIGTERM end a process of several at once, as it would any other program.

    Lightning's handler sends the others a message that they do not wait for, so that all of them
    hang; and so that it is found, each step asks all processes for it. The further processes end
    with the first one, and a resumed run goes on from its last checkpoint either way.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the handler back, which is set by now."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


class PoolStrategy(DDPStrategy):
    """DDP over the server alone, and checkpoints as one process would write them."""

    def __init__(self) -> None:
        """Choose DDP's settings."""
        super().__init__(timeout=TIMEOUT)

    def _configure_launcher(self) -> None:
        """Have none: the processes are there, and Lightning's would set the number of threads."""

    @property
    def _module(self) -> MocoSFL:
        assert isinstance(self.lightning_module, MocoSFL)
        return self.lightning_module

    @property
    def _clients(self) -> ClientPool:
        return self._module.federation.clients

    def configure_ddp(self) -> None:
        """Add up the gradients of what the server trains; nothing where it trains nothing.

        DDP is kept from all buffers too: the queue is filled with the same keys everywhere.
        """
        module = self._module
        trained = {id(p) for p in module.federation.server.parameters() if p.requires_grad}
        if not trained:
            return
        tensors = [*module.named_parameters(), *module.named_buffers()]
        ignored = [name for name, tensor in tensors if id(tensor) not in trained]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, ignored)
        super().configure_ddp()
        assert isinstance(self.model, DistributedDataParallel)
        # A sum and not DDP's mean: each process has its share of the loss.
        self.model.register_comm_hook(None, _add_up)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the module's state with the heads of the whole pool."""
        return _changed_stacks(super().lightning_module_state_dict(), self._of_pool)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load a checkpoint's state, of the heads this process's own."""
        state = _changed_stacks(dict(checkpoint[STATE]), self._own)
        super().load_model_state_dict({**checkpoint, STATE: state}, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's state with the SGD buffers of the whole pool."""
        return _changed_buffers(super().optimizer_state(optimizer), self._of_pool)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load a checkpoint's optimizer, of the heads' buffers this process's own."""
        states = [_changed_buffers(state, self._own) for state in checkpoint[OPTIMIZERS]]
        super().load_optimizer_state_dict({**checkpoint, OPTIMIZERS: states})

    def _of_pool(self, own: Tensor) -> Tensor:
        return self._clients.ranks.of_pool(own.detach(), self._clients.pool_size)

    def _own(self, of_pool: Tensor) -> Tensor:
        return of_pool[self._clients.ranks.own(self._clients.pool_size)].clone()

    def on_exception(self, exception: BaseException) -> None:
        """Note when this process failed, before `teardown` makes the others fail of it."""
        failure_time(exception)
        super().on_exception(exception)

    def teardown(self) -> None:
        """Part from the other processes; a run that goes back from a collapse meets new ones."""
        super().teardown()
        if dist.is_initialized():
            dist.destroy_process_group()


def _add_up(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """Add up the gradients of a bucket over the processes."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def _changed_stacks(state: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Change the stacked heads in a module's state, in place."""
    for name in [name for name in state if name.startswith(STACKS)]:
        state[name] = change(state[name])
    return state


def _changed_buffers(state: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Change the stacked SGD buffers in an optimizer's state; its own tensors stay as they are."""
    heads = {i for group in state["param_groups"] if group["name"] == CLIENTS
             for i in group["params"]}  # fmt: skip
    buffers = {
        index: {
            key: change(value) if index in heads and isinstance(value, Tensor) else value
            for key, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {**state, "state": buffers}
