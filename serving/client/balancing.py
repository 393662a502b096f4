"""Several servers behind one client: gRPC's round robin over those that say they are healthy.

Calls that a server refuses with UNAVAILABLE before it has begun to serve them, since it starts or drains, are made
again by gRPC itself, at the next server. So no stream start is lost while servers are restarted one after the other.
"""

import ipaddress
import json

from serving.generated.flowseg.v1 import segmentation_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["SegmentationService"].full_name
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": SERVICE},
    "methodConfig": [
        {
            "name": [{"service": SERVICE}],
            "retryPolicy": {
                "maxAttempts": 5,  # gRPC makes no more
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


def target_of(server: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What gRPC calls a server, or several, and the options of a channel to it beside those of all channels.

    Args:
        server: HOST:PORT; several servers as ADDRESS:PORT,ADDRESS:PORT; or dns:///HOST:PORT, for all addresses of a
            name.

    Raises:
        ValueError: if several are named, and not by their addresses.
    """
    options = (("grpc.service_config", json.dumps(SERVICE_CONFIG)),)
    if server.startswith("dns:"):
        return server, options
    if "," not in server:
        return server, ()
    servers = server.split(",")
    versions = {_ip_version(each) for each in servers}
    if len(versions) > 1:
        raise ValueError(f"the servers {server} have IPv4 and IPv6 addresses: name them by one kind")
    # the name that certificates are held to, too: that of the first
    return f"ipv{versions.pop()}:{server}", (*options, ("grpc.default_authority", servers[0]))


def _ip_version(server: str) -> int:
    host, _, port = server.rpartition(":")
    try:
        if not port.isdecimal():
            raise ValueError
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).version
    except ValueError:
        raise ValueError(
            f"{server!r} is no ADDRESS:PORT: name several servers by IP addresses, or one name for all as"
            " dns:///HOST:PORT"
        ) from None
