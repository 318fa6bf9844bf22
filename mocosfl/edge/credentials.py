"""The files that prove who a server or a client is; made by `mocosfl.edge.certificates`."""

import logging
import ssl
import stat
from pathlib import Path
from typing import NamedTuple

import grpc

logger = logging.getLogger(__name__)


class Credentials(NamedTuple):
    """Contents of ca.pem, cert.pem and key.pem."""

    ca: bytes
    cert: bytes
    key: bytes

    def for_server(self) -> grpc.ServerCredentials:
        """Return what a server needs that asks each client for its certificate."""
        return grpc.ssl_server_credentials(
            [(self.key, self.cert)], root_certificates=self.ca, require_client_auth=True
        )

    def for_client(self) -> grpc.ChannelCredentials:
        """Return what a client needs that shows its certificate."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


def read_credentials(folder: Path, key: str) -> Credentials:
    """Read a folder of certificates.

    Args:
        folder: with ca.pem, cert.pem and key.pem.
        key: how the user named the folder, for messages.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not what its name says.
    """
    contents = []
    for name, begins in (
        ("ca.pem", b"-----BEGIN CERTIFICATE-----"),
        ("cert.pem", b"-----BEGIN CERTIFICATE-----"),
        ("key.pem", b"-----BEGIN"),
    ):
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{key}={folder}: no {name} there; name a folder that `python -m "
                "mocosfl.edge.certificates` made, such as certificates/server"
            )
        content = path.read_bytes()
        private = b"PRIVATE KEY" in content
        if not content.startswith(begins) or private != (name == "key.pem"):
            raise ValueError(
                f"{key}={folder}: {name} is not what its name says; make it anew with `python -m "
                "mocosfl.edge.certificates`"
            )
        contents.append(content)
    _check_loading(folder, key)
    return Credentials(*contents)


def _check_loading(folder: Path, key: str) -> None:
    """Load the files as TLS will: gRPC would only say that no handshake succeeds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(folder / "ca.pem")
        # With a password at hand, OpenSSL doesn't ask for one on the terminal.
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem", password="")
    except ssl.SSLError as error:
        raise ValueError(
            f"{key}={folder}: ca.pem, cert.pem and key.pem don't load together ({error}); the key "
            "must be the certificate's own and not be encrypted; make them anew with "
            "`python -m mocosfl.edge.certificates`"
        ) from error
    private = folder / "key.pem"
    if stat.S_IMODE(private.stat().st_mode) & 0o077:
        logger.warning("%s can be read by others on this machine; chmod 600 it", private)
