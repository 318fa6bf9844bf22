"""A clock on each part of a step, by wrapping the methods that do it."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from benchmarks.contest import synchronise
from mocosfl.data.loader import StepLoader
from mocosfl.data.view_maker import ViewMaker
from mocosfl.federation import client_pool, server
from mocosfl.federation.federation import Federation
from mocosfl.federation.server import SmashedStep
from mocosfl.federation.step_input import Step

REST = "Lightning and the rest"
PARTS = (
    "data",
    "views",
    "change of pool",
    "heads, query",
    "heads, key",
    "trunk and projector, online",
    "trunk and projector, momentum",
    "momentum copies",
    "loss",
    "queue",
    "backward, server",
    "backward, heads",
    "optimizers",
    "sync",
)


class Parts:
    """Seconds by part. A part that begins inside another stops the other's clock meanwhile."""

    def __init__(self, device: str) -> None:
        """Set all clocks to zero.

        Args:
            device: `cuda` is waited for at each beginning and end.
        """
        self._device = device
        self._seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    def start(self, name: str) -> None:
        """Begin a part."""
        self._book()
        self._running.append(name)

    def stop(self) -> None:
        """End the part that began last."""
        self._book()
        self._running.pop()

    def _book(self) -> None:
        synchronise(self._device)
        now = time.perf_counter()
        if self._running:
            self._seconds[self._running[-1]] += now - self._since
        self._since = now

    def take(self) -> dict[str, float]:
        """Return the seconds of each part since the last call."""
        taken = {name: self._seconds.get(name, 0.0) for name in PARTS}
        self._seconds.clear()
        return taken

    def wrap(self, owner: Any, attribute: str, name: str) -> None:
        """Time what an object's, a class's or a module's attribute does when it is called."""
        original: Callable[..., Any] = getattr(owner, attribute)

        def timed(*arguments: Any, **named: Any) -> Any:
            self.start(name)
            try:
                return original(*arguments, **named)
            finally:
                self.stop()

        setattr(owner, attribute, timed)

    def wrap_module(self, module: nn.Module, name: str) -> None:
        """Time a module's forward pass, as it is compiled where it is."""
        compiled = module._compiled_call_impl is not None
        self.wrap(module, "_compiled_call_impl" if compiled else "forward", name)

    def watch_federation(self, federation: Federation) -> None:
        """Time the parts of all steps in this process."""
        clients, trained = federation.clients, federation.server
        self.wrap_module(clients.online, "heads, query")
        self.wrap_module(clients.momentum, "heads, key")
        self.wrap(clients, "enter", "change of pool")
        for part in ("trunk", "projector"):
            self.wrap_module(getattr(trained, part), "trunk and projector, online")
            momentum = getattr(trained, f"momentum_{part}")
            self.wrap_module(momentum, "trunk and projector, momentum")
        for module in (client_pool, server):
            self.wrap(module, "update_ema", "momentum copies")
        self.wrap(server, "contrastive_loss", "loss")
        for method in ("negatives", "enqueue"):
            self.wrap(trained.queue, method, "queue")
        self.wrap(federation, "synchronise", "sync")
        self.wrap(ViewMaker, "views", "views")
        self._watch_cut(federation)
        self._watch_loader()

    def _watch_cut(self, federation: Federation) -> None:
        """Tell the backward pass of the heads from that of the server."""
        smash = federation.smash

        def crossing(gradient: Tensor) -> None:
            self.stop()
            self.start("backward, heads")

        def watched(step: Step) -> SmashedStep:
            smashed = smash(step)
            if smashed.query.requires_grad:
                smashed.query.register_hook(crossing)
            return smashed

        federation.smash = watched  # type: ignore[method-assign]

    def _watch_loader(self) -> None:
        original = StepLoader.__iter__

        def timed(loader: StepLoader) -> Iterator[Step]:
            steps = original(loader)
            while True:
                self.start("data")
                try:
                    step = next(steps, None)
                finally:
                    self.stop()
                if step is None:
                    return
                yield step

        StepLoader.__iter__ = timed  # type: ignore[method-assign]
