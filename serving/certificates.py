"""The server's certificate, its key and who signs those of clients: three files, read again when they have changed.

Whoever renews certificates replaces the files and need not tell the server: it looks before each new connection.
Connections that are open go on with what they began with.
"""

import logging
import ssl
import stat
import threading
from pathlib import Path
from typing import NamedTuple

import grpc

logger = logging.getLogger(__name__)


class CertificateError(ValueError):
    """Certificates that cannot be used. The message is one sentence for the operator, without what is in the files."""


class CertificateFiles(NamedTuple):
    """Where they are, all PEM."""

    certificate: Path  # of the server, with the intermediate ones behind it
    key: Path  # of the certificate, without a password
    client_ca: Path | None  # signs the certificates that clients must have; None: they need none

    def given(self) -> tuple[Path, ...]:
        """Those that there are."""
        return (self.certificate, self.key) if self.client_ca is None else self  # type: ignore[return-value]  # no None


class _Loaded(NamedTuple):
    """What was in the files at one time."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    http_context: ssl.SSLContext


_Version = tuple[tuple[int, int, int], ...]  # inode, size and time of change of each file


class Certificates:
    """Those of a server. For any thread: gRPC asks from its own."""

    def __init__(self, files: CertificateFiles) -> None:
        """Reads them.

        Raises:
            CertificateError: if they cannot be used.
        """
        self._files = files
        self._lock = threading.Lock()
        self._version = _version(files)
        self._refused: _Version | None = None  # that could not be used: not tried again at each connection
        self._loaded = _load(files)
        if files.key.stat().st_mode & stat.S_IROTH:
            logger.warning("everybody on this machine can read %s: chmod it to 600", files.key)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For a port of gRPC."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._renewed_configuration, self._files.client_ca is not None
        )

    def http_context(self) -> ssl.SSLContext:
        """For a port of HTTP, which asks clients for no certificate: probes of health have none."""

        def renew(socket: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            del name, context
            self._refresh()
            socket.context = self._loaded.http_context

        context = _load(self._files).http_context
        context.sni_callback = renew  # called for each connection, whether or not it names the server
        return context

    def _renewed_configuration(self) -> grpc.ServerCertificateConfiguration:
        self._refresh()
        return self._configuration()

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        loaded = self._loaded
        return grpc.ssl_server_certificate_configuration([(loaded.key, loaded.certificate)], loaded.client_ca)

    def _refresh(self) -> None:
        """Reads the files if they have changed."""
        with self._lock:
            try:
                version = _version(self._files)
                if version in (self._version, self._refused):
                    return
                self._refused = version
                loaded = _load(self._files)
                # replaced one after the other: what was read must be what is there, or the next connection looks again
                if _version(self._files) == version:
                    self._loaded, self._version = loaded, version
                    logger.info("the certificate is read again: %s", self._files.certificate)
                self._refused = None
            except CertificateError as error:
                logger.warning("the certificate stays what it was: %s", error)


def _version(files: CertificateFiles) -> _Version:
    """What changes when a file is replaced or written to; links are followed."""
    try:
        status = [path.stat() for path in files.given()]
    except OSError as error:
        raise CertificateError(f"{error.filename} cannot be read: {error.strerror}") from error
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in status)


def _load(files: CertificateFiles) -> _Loaded:
    try:
        certificate, key = files.certificate.read_bytes(), files.key.read_bytes()
        client_ca = None if files.client_ca is None else files.client_ca.read_bytes()
    except OSError as error:
        raise CertificateError(f"{error.filename} cannot be read: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(f"{files.key} is not the key of {files.certificate}") from error
        raise CertificateError(
            f"{files.certificate} and {files.key} are no certificate and key in PEM without a password"
        ) from error
    if files.client_ca is not None and client_ca is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=client_ca.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise CertificateError(f"{files.client_ca} holds no certificate in PEM") from error
    return _Loaded(certificate, key, client_ca, context)


def _no_password() -> str:
    """Instead of a question on the terminal."""
    raise ValueError("the key has a password")
