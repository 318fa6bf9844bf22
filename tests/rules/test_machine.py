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


def test_unknown_name_is_reported_alone(compose: Compose) -> None:
    """What follows from a method that is not known is not known either."""
    config = compose(["clients=100", "seed=-1"])
    config.method.name = "fedavg"
    with pytest.raises(ValueError) as error:
        validate(config)
    assert str(error.value) == (
        "method.name=fedavg: unknown; choose one of mocosfl, monacosfl, fl_moco, central_moco, "
        "sfl_supervised, central_supervised"
    )
