"""Why a run was stopped on purpose."""


class TrainingStopped(RuntimeError):
    """The run has failed and was stopped on purpose; the message says why and what to do."""


class Collapsed(TrainingStopped):
    """The embeddings tell nothing any more; `step` is where that was seen."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
