"""The client's program: what it refuses before it starts, and how it ends."""

import asyncio
import builtins
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mocosfl.edge import federation_pb2 as pb
from mocosfl.edge import wire
from mocosfl.edge.certificates import make_certificates
from mocosfl.edge.client import __main__ as client
from mocosfl.edge.client.server_connection import ServerAddress
from mocosfl.edge.credentials import read_credentials
from tests.support.paths import ROOT
from tests.support.scripted_server import Talk, run, serving, step

SETTINGS = pb.Settings(
    seed=1,
    network=pb.Network(backbone="resnet18", width=4, cut_layer=1, client_residual=True),
    views=pb.Views(crop_scale_min=1, crop_scale_max=1, ratio_min=1, ratio_max=1),
    image_size=16,
    mean=[0.5] * 3,
    std=[0.2] * 3,
    batch_size=2,
    steps_per_round=3,
    tau=0.99,
    sgd_momentum=0.9,
    smashed_dtype=pb.FP32,
    compute_dtype=pb.FP32,
    smashed_shape=(4, 16, 16),
    num_parameters=3 * 4 * 9 + 4 + 4,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "data" / "images.npy", images)
    return tmp_path / "data"


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    folder = tmp_path / "certificates"
    make_certificates(folder, num_clients=2, server_names=["localhost"], days=1)
    return folder


def test_server_is_called_by_the_words_it_is_given_by() -> None:
    for server in ("[fe80::1%eth0]:65535", "127.0.0.1:1", "lab.example:50061"):
        arguments = ["--server", server, "--data", "d", "--certificates", "c"]
        assert client._parsed(arguments).server == server


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--certificates", "c", "--server", "lab"], "lab: no HOST:PORT"),
        (["--certificates", "c", "--server", "lab:0"], "lab:0: no HOST:PORT"),
        ([], "--certificates: name the folder"),
        (["--insecure"], "--client: needed with --insecure"),
        (["--insecure", "--client", "1", "--certificates", "c"], "--insecure: leave it out"),
        (["--insecure", "--client", "-1"], "--client -1"),
        (["--insecure", "--client", "one"], "invalid int"),
        (["--certificates", "c", "--threads", "0"], "--threads 0"),
        (["--certificates", "c", "--give-up-after", "-1"], "--give-up-after -1"),
        (["--certificates", "c", "--give-up-after", "nan"], "--give-up-after nan"),
        (["--certificates", "c", "--head", "h", "--state", "s"], "--state: leave it out"),
    ],
)
def test_wrong_arguments_are_told_with_a_way_out(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        client.main(["--server", "localhost:50051", "--data", "d", *arguments])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what the program sets for itself."""
    for name in ("OMP_NUM_THREADS", "GRPC_VERBOSITY"):
        monkeypatch.setenv(name, os.environ.get(name, "1" if name == "OMP_NUM_THREADS" else "NONE"))


@pytest.mark.usefixtures("environment")
def test_missing_files_end_the_program_without_a_traceback(
    data: Path, certificates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = str(certificates / "clients" / "1")
    server = ["--server", "localhost:50051"]
    for arguments, message in [
        (["--certificates", str(certificates), "--data", str(data)], "no cert.pem there"),
        (["--certificates", own, "--data", str(data / "no")], "no such folder"),
        (["--certificates", own, "--data", str(certificates)], "neither images.npy nor pictures"),
    ]:
        assert client.main([*server, *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("\nmocosfl: ") and message in error and "Traceback" not in error


@pytest.mark.usefixtures("environment")
def test_an_insecure_client_warns_unless_the_server_is_on_this_machine(
    data: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["--data", str(data), "--insecure", "--client", "1", "--give-up-after", "0"]
    assert client.main(["--server", "127.0.0.1:1", *arguments]) == 1
    assert "nothing is encrypted" not in caplog.text
    monkeypatch.setattr(ServerAddress, "is_loopback", False)
    assert client.main(["--server", "127.0.0.1:1", *arguments]) == 1
    assert "nothing is encrypted" in caplog.text
    captured = capsys.readouterr()
    assert "gave up after 0 s" in captured.err
    assert captured.out.count("images    0 in 0 steps") == 2


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("missing", "head", "message"),
    [
        ("torch", [], "trains needs torch, which is not installed; install it, or run an exported"),
        ("onnxruntime", ["--head", "h.onnx"], "exported needs onnxruntime, which is not installed"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_way_out(
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    head: list[str],
    message: str,
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    for module in ("frozen_head", "exported_head"):
        monkeypatch.delitem(sys.modules, f"mocosfl.edge.client.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    arguments = ["--server", "localhost:1", "--data", str(data), "--insecure", "--client", "1"]
    assert client.main([*arguments, *head]) == 1
    assert message in capsys.readouterr().err


@asynccontextmanager
async def _client(
    address: str, data: Path, *arguments: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mocosfl.edge.client", "--server", address, "--data", str(data)),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _welcome() -> pb.Welcome:
    weights = np.linspace(-1, 1, SETTINGS.num_parameters, dtype=np.float32)
    return pb.Welcome(
        protocol=wire.PROTOCOL,
        run="r",
        incarnation="i",
        client=1,
        settings=SETTINGS,
        head=pb.Head(online=wire.encode_tensor(weights, pb.FP32)),
    )


@pytest.mark.slow
def test_the_program_trains_over_mutual_tls_and_says_what_it_did(
    data: Path, certificates: Path, tmp_path: Path
) -> None:
    """A step, a state that is kept, the end of the run; nothing but TLS on the wire."""
    heard: list[Any] = []

    async def script(talk: Talk) -> None:
        heard.append(talk.context.auth_context()["x509_common_name"])
        heard.append(await talk.hear())
        await talk.say(welcome=_welcome())
        smashed = await talk.ask(step=step(0, sync_after=True))
        heard.append(await talk.ask(gradient=pb.Gradient(step=0, query=smashed.query)))
        heard.append(await talk.ask(keep=pb.Keep(step=1)))
        await talk.finish()

    async def both() -> tuple[int | None, str, str]:
        credentials = read_credentials(certificates / "server", "server").for_server()
        async with serving(script, credentials=credentials) as server:
            address = server.address.replace("127.0.0.1", "localhost")
            own = ["--certificates", str(certificates / "clients" / "1")]
            own += ["--state", str(tmp_path / "state")]
            async with _client(address, data, *own) as process:
                output, errors = await process.communicate()
        return process.returncode, output.decode(), errors.decode()

    code, output, errors = run(both())
    assert code == 0, errors
    name, hello, weights, kept = heard
    assert list(name) == [b"client-1"] and hello.num_images == 5 and kept.step == 1
    assert weights.online != _welcome().head.online  # it has learned
    assert len(list((tmp_path / "state").glob("kept-*.pt"))) == 1
    assert "images    2 in 1 steps; left out of 0 more" in output
    assert "the server says goodbye: done" in errors


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_program_with_its_summary(data: Path, number: signal.Signals) -> None:
    async def script(talk: Talk) -> None:
        await talk.hear()
        await talk.say(welcome=_welcome())
        await talk.ask(step=step(0))
        await asyncio.sleep(1)  # until the client has noted what it has sent
        process.send_signal(number)
        await talk.hear()

    process: asyncio.subprocess.Process

    async def both() -> tuple[int | None, str]:
        nonlocal process
        own = ("--insecure", "--client", "1")
        async with serving(script) as server, _client(server.address, data, *own) as process:
            output, _ = await process.communicate()
        return process.returncode, output.decode()

    code, output = run(both())
    assert code == 128 + number
    assert "images    2 in 0 steps; left out of 1 more" in output


@pytest.fixture(autouse=True)
def root_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)  # the program's basicConfig does nothing beside pytest's handler
