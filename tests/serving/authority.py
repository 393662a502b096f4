"""Certificates as an operator has them, made in a moment and good for a day, and clients in a token file."""

import datetime
import ipaddress
import json
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.certificates import CertificateFiles
from serving.clients import hash_token

TOKENS = {"camera": "camera-secret-1", "boss": "boss-secret-2", "graphs": "graphs-secret-3"}
ROLES = {"camera": ["stream"], "boss": ["admin"], "graphs": ["monitor"]}


class Pair(NamedTuple):
    """A certificate and its key, in PEM files."""

    certificate: Path
    key: Path

    def files(self, client_ca: Path | None = None) -> CertificateFiles:
        return CertificateFiles(self.certificate, self.key, client_ca)

    def take(self, other: "Pair") -> None:
        """Replaces both files, as whoever renews certificates does."""
        for mine, theirs in zip(self, other, strict=True):
            fresh = mine.with_suffix(".fresh")
            fresh.write_bytes(theirs.read_bytes())
            fresh.rename(mine)


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = folder / f"{name}-ca.pem"
        self.certificate.write_bytes(self._sign(self._name, self._key, x509.BasicConstraints(True, None)))

    def issue(self, name: str, host: str = "127.0.0.1") -> Pair:
        """A certificate for a host, or a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            at: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            at = x509.DNSName(host)
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pair.certificate.write_bytes(self._sign(_name(name), key, x509.SubjectAlternativeName([at])))
        pair.key.write_bytes(private_pem(key))
        pair.key.chmod(0o600)
        return pair

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> bytes:
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day)
        builder = builder.not_valid_after(now + day).add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def private_pem(key: ec.EllipticCurvePrivateKey, password: str | None = None) -> bytes:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        protection = serialization.BestAvailableEncryption(password.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def write_tokens(path: Path, **quotas: dict[str, float]) -> Path:
    """A token file with the clients above, of which some have a quota."""
    clients = [
        {"name": name, "roles": ROLES[name], "token_sha256": [hash_token(token)]} | quotas.get(name, {})
        for name, token in TOKENS.items()
    ]
    path.write_text(json.dumps({"clients": clients}))
    return path


def bearer(client: str) -> tuple[tuple[str, str], ...]:
    """What a client sends with each call."""
    return (("authorization", f"Bearer {TOKENS[client]}"),)
