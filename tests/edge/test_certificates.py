"""Certificates: what is made, what is left, and that TLS believes these and no others."""

import stat
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from mocosfl.edge.certificate_names import client_of, common_name
from mocosfl.edge.certificates import main, make_certificates
from mocosfl.edge.client.participation import take_part
from mocosfl.edge.client.server_connection import GaveUp, ServerAddress
from mocosfl.edge.credentials import read_credentials
from tests.support.recording_head import RecordingHead
from tests.support.scripted_server import Talk, run, serving

pytestmark = pytest.mark.usefixtures("quick_retries")
NAMES = ("localhost", "127.0.0.1", "::1", "lab.example")


def make(folder: Path, num_clients: int = 2) -> list[str]:
    return make_certificates(folder, num_clients=num_clients, server_names=NAMES, days=30)


def certificate(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path / "certificates")
    return tmp_path / "certificates"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_holder_gets_three_files_and_keys_are_for_their_owner_alone(folder: Path) -> None:
    files = {str(path.relative_to(folder)) for path in contents(folder)}
    holders = ("server", "clients/0", "clients/1")
    parts = ("ca.pem", "cert.pem", "key.pem")
    expected = {f"{holder}/{part}" for holder in holders for part in parts}
    assert files == expected | {"ca.pem", "ca_key.pem"}
    for key in folder.rglob("*key.pem"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_certificate_says_who_its_client_is_and_where_the_server_is(folder: Path) -> None:
    for client in (0, 1):
        (name,) = certificate(folder / "clients" / str(client)).subject
        assert client_of(str(name.value)) == client
    server = certificate(folder / "server")
    (name,) = server.subject
    assert client_of(str(name.value)) is None
    alternatives = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = [str(name.value) for name in alternatives]
    assert found == list(NAMES)


def test_only_names_as_we_write_them_mean_a_client() -> None:
    assert [client_of(common_name(number)) for number in (0, 7, 120)] == [0, 7, 120]
    wrong = ("client-", "client-01", "client--1", "client-1 ", "client-1\n", "Client-1", "client-٣")
    assert [client_of(name) for name in wrong] == [None] * len(wrong)


def test_started_again_it_adds_clients_and_leaves_what_is_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)
    main([str(folder), "--clients", "3"])
    after = contents(folder)
    assert {path: after[path] for path in before} == before
    assert {path.parent.name for path in set(after) - set(before)} == {"2"}
    output = capsys.readouterr().out.splitlines()
    assert output[0] == f"made  {folder / 'clients' / '2'}"
    assert sum(line.startswith("left  ") for line in output) == 4
    new, old = certificate(folder / "clients" / "2"), certificate(folder / "clients" / "1")
    assert new.issuer == old.issuer
    new.verify_directly_issued_by(x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()))


def test_a_certificate_lasts_as_long_as_asked_and_no_longer_than_the_authority(
    tmp_path: Path,
) -> None:
    make_certificates(tmp_path, num_clients=1, server_names=["a"], days=20_000)
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    long = certificate(tmp_path / "clients" / "0")
    assert long.not_valid_after_utc == authority.not_valid_after_utc
    make_certificates(tmp_path, num_clients=2, server_names=["a"], days=20)
    short = certificate(tmp_path / "clients" / "1")
    assert (short.not_valid_after_utc - short.not_valid_before_utc).days == 21


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "ca_key.pem").unlink(), r"ca_key\.pem: missing beside ca\.pem"),
        (lambda f: (f / "ca.pem").unlink(), r"ca\.pem: missing beside ca_key\.pem"),
        (lambda f: (f / "ca.pem").write_text("x"), "can't be read"),
        (
            lambda f: (f / "ca_key.pem").write_bytes((f / "server/key.pem").read_bytes()),
            "not the key of",
        ),
    ],
)
def test_a_damaged_authority_is_refused(folder: Path, damage: object, message: str) -> None:
    assert callable(damage)
    damage(folder)
    before = contents(folder)
    with pytest.raises(ValueError, match=message):
        make(folder, 3)
    assert contents(folder) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--clients", "-1"],
        ["--clients", "2", "--days", "0"],
        ["--clients", "2", "--server-names", ","],
        ["--clients", "2", "--server-names", "host:50051"],
        [],
    ],
)
def test_wrong_arguments_are_told_without_a_traceback(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([str(tmp_path / "new"), *arguments])
    assert exit_info.value.code != 0
    assert not (tmp_path / "new").exists()


def connect(server_folder: Path, client_folder: Path) -> list[str]:
    """Take part in a run of no step; returns the common names that the server was shown."""
    shown: list[str] = []

    async def script(talk: Talk) -> None:
        shown.extend(
            name.decode() for name in talk.context.auth_context().get("x509_common_name", ())
        )
        await talk.let_in()
        await talk.finish()

    async def both() -> None:
        credentials = read_credentials(server_folder, "server").for_server()
        async with serving(script, credentials=credentials) as server:
            address = server.address.replace("127.0.0.1", "localhost")
            own = ServerAddress(address, read_credentials(client_folder, "client").for_client())
            await take_part(RecordingHead(), own, num_images=1, give_up_after=0.2)

    run(both())
    return shown


def test_server_and_client_believe_each_others_certificates(folder: Path) -> None:
    assert connect(folder / "server", folder / "clients" / "1") == ["client-1"]


def test_a_client_of_another_authority_never_reaches_the_server(
    folder: Path, tmp_path: Path
) -> None:
    make(tmp_path / "others")
    mixed = tmp_path / "others" / "clients" / "1"
    # It trusts the server, but the server must not trust it.
    (mixed / "ca.pem").write_bytes((folder / "ca.pem").read_bytes())
    with pytest.raises(GaveUp, match="look at the certificates"):
        connect(folder / "server", mixed)


def test_a_client_believes_no_server_of_another_authority_and_says_why(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "others")
    with pytest.raises(GaveUp, match=r"[Hh]andshake"):
        connect(tmp_path / "others" / "server", folder / "clients" / "1")
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


def test_a_clients_certificate_cannot_serve(folder: Path) -> None:
    with pytest.raises(GaveUp, match=r"[Hh]andshake"):
        connect(folder / "clients" / "0", folder / "clients" / "1")


def test_files_that_do_not_belong_together_are_refused(folder: Path) -> None:
    own = folder / "clients" / "1"
    (own / "key.pem").write_bytes((folder / "clients/0/key.pem").read_bytes())
    with pytest.raises(ValueError, match="don't load together"):
        read_credentials(own, "--certificates")


def test_an_open_key_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = folder / "clients" / "1" / "key.pem"
    assert isinstance(read_credentials(key.parent, "x").for_client(), grpc.ChannelCredentials)
    assert not caplog.text
    key.chmod(0o644)
    read_credentials(key.parent, "--certificates")
    assert "chmod 600" in caplog.text
