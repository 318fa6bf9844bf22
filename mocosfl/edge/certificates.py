"""Make the certificates of a federation: `python -m mocosfl.edge.certificates --help`.

    <folder>/ca.pem, ca_key.pem              of the federation's own authority
             server/{ca,cert,key}.pem        for the server
             clients/<id>/{ca,cert,key}.pem  for each client

A certificate names its client: `client-3` is client 3, whatever the device says. ECDSA keys on
P-256, because a small device signs with them quickly.
"""

import argparse
import datetime
import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mocosfl.edge.certificate_names import common_name
from mocosfl.system.errors import user_errors
from mocosfl.system.files import whole_folder, write_new

CA_DAYS = 3650
SERVER_NAME = "mocosfl-server"  # names no client, see `certificate_names.client_of`
_MAX_DAYS = 36_500
# A device without a battery-backed clock may lag behind when it starts.
_CLOCK_ALLOWANCE = datetime.timedelta(days=1)

DESCRIPTION = """\
Make an authority (once), a certificate for the server and one for each client. Started again, it
adds what is missing and leaves what is there. Keep ca_key.pem off the devices, and give each client
its own folder below clients/ and nothing else.

  python -m mocosfl.edge.certificates certificates --clients 4 --server-names lab.example,10.0.0.5
"""


class Authority(NamedTuple):
    """What signs the others."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def main(arguments: list[str]) -> None:
    """Make what is missing, and say what was made and what was left."""
    chosen = _parsed(arguments)
    with user_errors():
        report = make_certificates(
            chosen.folder,
            num_clients=chosen.clients,
            server_names=chosen.server_names,
            days=chosen.days,
        )
    print("\n".join(report))


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mocosfl.edge.certificates",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where they are written")
    parser.add_argument(
        "--clients", type=int, required=True, metavar="N", help="for the clients 0 to N - 1"
    )
    parser.add_argument(
        "--server-names",
        default="localhost,127.0.0.1",
        metavar="NAMES",
        help="host names and addresses that clients call the server by, separated by commas; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--days", type=int, default=365, help="for which they are valid; default: %(default)s"
    )
    chosen = parser.parse_args(arguments)
    if chosen.clients < 0:
        parser.error(f"--clients {chosen.clients}: at least 0")
    if not 1 <= chosen.days <= _MAX_DAYS:
        parser.error(f"--days {chosen.days}: from 1 to {_MAX_DAYS}")
    chosen.server_names = [name.strip() for name in chosen.server_names.split(",") if name.strip()]
    if not chosen.server_names:
        parser.error("--server-names: name at least one host or address")
    return chosen


def make_certificates(
    folder: Path, *, num_clients: int, server_names: Sequence[str], days: int
) -> list[str]:
    """Make what is missing of a federation's certificates; no key is ever overwritten.

    Args:
        folder: where they are written.
        num_clients: for the clients 0 to num_clients - 1.
        server_names: host names and IP addresses of the server.
        days: for which the certificates are valid, at most as long as the authority's.

    Returns:
        Lines that say what was made and what was left.

    Raises:
        ValueError: the authority in the folder is incomplete or broken, or a name is no host name.
        OSError: the folder can't be written.
    """
    names = [_general_name(name) for name in server_names]
    folder.mkdir(parents=True, exist_ok=True)
    made: list[str] = []
    left: list[str] = []
    places: list[tuple[Path, str, list[x509.GeneralName]]] = [
        (folder / "server", SERVER_NAME, names),
        *((folder / "clients" / str(c), common_name(c), []) for c in range(num_clients)),
    ]
    is_new = not ((folder / "ca.pem").exists() or (folder / "ca_key.pem").exists())
    authority = _make_authority(folder) if is_new else _read_authority(folder)
    (made if is_new else left).append(f"the authority {folder / 'ca.pem'}")
    for place, name, alternatives in places:
        if place.exists():
            left.append(f"{place} ({_expiry(place)})")
            continue
        _make_identity(place, name, authority, alternatives, days)
        made.append(str(place))
    lines = [f"made  {line}" for line in made] + [f"left  {line}" for line in left]
    if left and not is_new:
        lines.append("What was left is as it was; to renew a certificate, remove its folder first.")
    return lines


def _make_authority(folder: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("mocosfl-ca")
    builder = (
        _builder(name, name, key, days=CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )
    certificate = builder.sign(key, hashes.SHA256())
    # The certificate last: with it the authority counts as complete.
    write_new(folder / "ca_key.pem", _pem(key), mode=0o600)
    write_new(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return Authority(certificate, key)


def _read_authority(folder: Path) -> Authority:
    paths = folder / "ca.pem", folder / "ca_key.pem"
    for path, other in (paths, paths[::-1]):
        if not path.exists():
            raise ValueError(
                f"{path}: missing beside {other.name}; put it back, or choose another folder "
                "for a new authority"
            )
    try:
        certificate = x509.load_pem_x509_certificate(paths[0].read_bytes())
        key = serialization.load_pem_private_key(paths[1].read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder}: ca.pem or ca_key.pem can't be read ({error})") from error
    same = isinstance(key, ec.EllipticCurvePrivateKey) and (
        key.public_key() == certificate.public_key()
    )
    if not same:
        raise ValueError(f"{folder}: ca_key.pem is not the key of ca.pem; put the right one back")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Authority(certificate, key)


def _make_identity(
    place: Path,
    name: str,
    authority: Authority,
    alternatives: list[x509.GeneralName],
    days: int,
) -> None:
    """Write a folder of ca.pem, cert.pem and key.pem: whole, or not at all."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    usage = ExtendedKeyUsageOID.SERVER_AUTH if alternatives else ExtendedKeyUsageOID.CLIENT_AUTH
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(_name(name), issuer.subject, key, days=days, latest=issuer.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    with whole_folder(place, mode=0o700) as partial:
        write_new(partial / "key.pem", _pem(key), mode=0o600)
        for file, content in (("cert.pem", certificate), ("ca.pem", issuer)):
            pem = content.public_bytes(serialization.Encoding.PEM)
            write_new(partial / file, pem, mode=0o644)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    days: int,
    latest: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_ALLOWANCE)
        .not_valid_after(end if latest is None else min(end, latest))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if not name.isascii() or any(c.isspace() or c in "/:[]" for c in name):
        raise ValueError(
            f"--server-names {name}: neither a host name nor an address; leave out port and "
            "brackets, and write names in ASCII"
        )
    return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _expiry(place: Path) -> str:
    try:
        end = x509.load_pem_x509_certificate((place / "cert.pem").read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        return f"its cert.pem can't be read: {error}"
    word = "expired on" if end < datetime.datetime.now(datetime.UTC) else "valid until"
    return f"{word} {end:%Y-%m-%d}"


if __name__ == "__main__":
    main(sys.argv[1:])
