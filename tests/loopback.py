"""Keeps a process from every address but those of this machine."""

import fcntl
import ipaddress
import socket
import struct
import sys

SET_FLAGS, IS_UP = 0x8914, 0x1  # SIOCSIFFLAGS, IFF_UP: <linux/sockios.h>, <linux/if.h>


def raise_loopback() -> None:
    """In a network namespace that was made for this process: it has nothing but a loopback, which is down at first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH14x", b"lo", IS_UP))


def allow_loopback_only() -> None:
    """Lets Python's sockets reach nothing else, and look up no name. Cannot be undone."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.bind", "socket.sendto") and isinstance(arguments[1], tuple):
        host = str(arguments[1][0])
        if host and not _is_local(host):
            raise PermissionError(f"{event} to {host}: only this machine may be reached")
    elif event == "socket.getaddrinfo" and not _is_local(str(arguments[0])):
        raise PermissionError(f"a look-up of {arguments[0]!s}: only this machine may be reached")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "None")
