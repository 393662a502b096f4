"""How a client proves who it is, and to whom: certificates and a token, all from files."""

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

MAX_TOKEN_CHARACTERS = 256
Metadata: TypeAlias = tuple[tuple[str, str], ...]


class CredentialsError(ValueError):
    """Credentials that cannot be used. The message is one sentence for the user, without what is in the files."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Of one client. Without any, connections are not encrypted, and nobody is told who calls."""

    ca: Path | None = None  # PEM file that signs the certificate a server must have; None: not encrypted
    certificate: Path | None = None  # PEM file, the client's own, for servers that want one
    key: Path | None = None  # PEM file, the key of `certificate`
    token_file: Path | None = None  # file with the token alone; read at each call, so that it may be replaced

    def check(self, server: str) -> None:
        """Refuses what cannot work, and a token that others could read on its way to `server`.

        Raises:
            CredentialsError: with one sentence that says why.
        """
        if (self.certificate is None) != (self.key is None):
            raise CredentialsError("a client's certificate and its key belong to each other: give both or none")
        if self.certificate is not None and self.ca is None:
            raise CredentialsError("a client's certificate is for encrypted connections: give the server's CA too")
        if self.token_file is not None and self.ca is None and not all(map(_is_loopback, server.split(","))):
            raise CredentialsError(f"a token is not sent to {server} where others can read it: give the server's CA")
        self.channel_credentials()
        self.metadata()

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """For an encrypted connection; None for one that is not.

        Raises:
            CredentialsError: if a file cannot be used.
        """
        if self.ca is None:
            return None
        ca = _read(self.ca, "the CA")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=ca.decode("ascii", errors="ignore"))
        except (ssl.SSLError, ValueError) as error:  # ValueError for nothing at all
            raise CredentialsError(f"{self.ca} holds no certificate in PEM") from error
        if self.certificate is None or self.key is None:
            return grpc.ssl_channel_credentials(ca)
        certificate, key = _read(self.certificate, "the certificate"), _read(self.key, "the key")
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise CredentialsError(
                f"{self.certificate} and {self.key} are no certificate and its key in PEM, without a password"
            ) from error
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def metadata(self) -> Metadata:
        """What goes with each call.

        Raises:
            CredentialsError: if the token cannot be read.
        """
        if self.token_file is None:
            return ()
        token = _read(self.token_file, "the token").decode("ascii", errors="replace").strip()
        if not 0 < len(token) <= MAX_TOKEN_CHARACTERS or not token.isprintable() or not token.isascii() or " " in token:
            raise CredentialsError(f"{self.token_file} is to hold one token and nothing else")
        return (("authorization", f"Bearer {token}"),)


NO_CREDENTIALS = Credentials()


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"{what} cannot be read from {path}: {error.strerror}") from error


def _no_password() -> str:
    """Instead of a question on the terminal."""
    raise ValueError("the key has a password")


def _is_loopback(server: str) -> bool:
    """Whether HOST:PORT is on this machine, or a socket in its file system."""
    if server.startswith("unix:"):
        return True
    host = server.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
