"""What a machine lacks is refused where a run starts; whether it makes sense is asked apart."""

import pytest
import torch

from mocosfl.rules.machine import check_machine
from mocosfl.rules.validate import validate
from tests.support.configurations import Compose


def test_gpu_and_compiler_are_the_machine_s_and_not_the_configuration_s(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    config = compose(["clients=100", "trainer.accelerator=gpu", "trainer.compile=true"])
    validate(config)
    with pytest.raises(ValueError) as error:
        check_machine(config)
    gpu, compiler = str(error.value).splitlines()
    assert gpu == (
        "trainer.accelerator=gpu: no GPU here that this PyTorch can use; choose auto or cpu"
    )
    assert compiler.startswith("trainer.compile=true: torch.compile needs a C++ compiler")


def test_more_processes_than_gpus_are_refused(compose: Compose, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = compose(["clients=100", "trainer=ddp"])
    with pytest.raises(ValueError) as error:
        check_machine(config)
    assert str(error.value).splitlines() == [
        "trainer.devices=2: a process needs a GPU of its own, and there are 1; use at most that "
        "many, or trainer.accelerator=cpu"
    ]
    config.trainer.accelerator = "cpu"
    check_machine(config)


def test_without_a_compiler_a_compiled_run_is_refused(
    compose_quick: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"trainer.compile=true: .* no-such-compiler is not on"):
        check_machine(compose_quick(["trainer.compile=true"]))
