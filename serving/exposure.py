"""Where a server may listen with what protection: on a loopback address as it likes, elsewhere with TLS and tokens."""

import ipaddress
import logging
from typing import NamedTuple

from serving.certificates import CertificateFiles, Certificates
from serving.clients import Clients
from serving.options import ServerOptions

logger = logging.getLogger(__name__)


class Protection(NamedTuple):
    """What stands between a server and its network."""

    certificates: Certificates | None  # None: connections are not encrypted
    clients: Clients | None  # None: nobody is asked for a token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. Names other than localhost are not looked up: they may change."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_protection(options: ServerOptions) -> Protection:
    """Reads certificates and tokens, and refuses to be open to a network without them.

    Raises:
        ValueError: with one sentence that says what is missing or wrong.
    """
    if (options.certificate is None) != (options.key is None):
        raise ValueError("--certificate and --key belong to each other: give both or none")
    if options.client_ca is not None and options.certificate is None:
        raise ValueError("--client-ca does nothing without --certificate and --key: give all three")
    hosts = [options.host] + ([] if options.admin_port is None else [options.admin_host])
    outside = [host for host in hosts if not is_loopback(host)]
    missing = [
        what
        for what, value in (("--certificate and --key", options.certificate), ("--tokens", options.tokens))
        if value is None
    ]
    if outside and missing and not options.insecure:
        raise ValueError(
            f"on {outside[0]} others than this machine reach the server: give {' and '.join(missing)},"
            " or --insecure if your network is trusted or something else protects it (serving/SECURITY.md)"
        )
    if options.insecure and not (outside and missing):
        raise ValueError("--insecure does nothing here: the server is on a loopback address, or has all it needs")
    certificates = None
    if options.certificate is not None and options.key is not None:
        certificates = Certificates(CertificateFiles(options.certificate, options.key, options.client_ca))
    protection = Protection(certificates, None if options.tokens is None else Clients(options.tokens))
    if options.insecure:
        logger.warning("--insecure: whoever reaches %s finds a server without %s", outside[0], " and ".join(missing))
    return protection
