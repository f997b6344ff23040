"""Certificates of a loopback cluster: one authority, one certificate a broker, all made in the data folder.

The authority signs what is needed once, and its key is then forgotten: nobody can have it sign another.
Files are PEM, as Kafka reads them with `ssl.keystore.type=PEM`: a broker's key (PKCS #8), then its certificate.
"""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BROKER_NAME: Final = "hauptbuch-broker"
_YEARS: Final = timedelta(days=3650)
_CLOCKS_DIFFER: Final = timedelta(days=1)


def authority_file(root: Path) -> Path:
    """What clients verify brokers with."""
    return root / "tls" / "ca.pem"


def broker_file(root: Path, node_id: int) -> Path:
    """A broker's key and certificate, for its owner's eyes only."""
    return root / "tls" / f"broker-{node_id}.pem"


def issue(root: Path, node_ids: list[int]) -> None:
    """Make all files under `root`/tls."""
    authority_file(root).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Hauptbuch loopback authority")
    unsigned = _certificate(name, name, key.public_key())
    unsigned = unsigned.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    unsigned = unsigned.add_extension(_usage(signs_certificates=True), critical=True)
    authority_file(root).write_bytes(unsigned.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    for node_id in node_ids:
        write_private(broker_file(root, node_id), _broker(name, key))


def write_private(path: Path, content: bytes) -> None:
    """Replace a file whole; nobody but its owner can read it at any moment."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
    temporary.replace(path)


def _broker(issuer: x509.Name, issuer_key: ec.EllipticCurvePrivateKey) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    unsigned = _certificate(_name(BROKER_NAME), issuer, key.public_key())
    unsigned = unsigned.add_extension(x509.SubjectAlternativeName(names), critical=False)
    unsigned = unsigned.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    unsigned = unsigned.add_extension(_usage(signs_certificates=False), critical=True)
    # Brokers are each other's clients too.
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = unsigned.add_extension(both, critical=False).sign(issuer_key, hashes.SHA256())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + _YEARS)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
