"""Which machines may be contacted: public ones, and networks that a study names.

A list of addresses, a redirect or a name server may point into the network of a fetching job, where machines trust each
other. So names are resolved here, and the connection goes to the very number that was judged.
"""

import ipaddress
import socket
from collections.abc import Sequence

Number = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
# Not public, whatever the Python that runs this knows: old site-local numbers, translation inside a site, examples.
NOT_PUBLIC = [ipaddress.ip_network(text) for text in ("192.0.0.0/24", "fec0::/10", "64:ff9b:1::/48", "3fff::/20")]
TUNNELLED = (0x00005EFE, 0x02005EFE)  # ISATAP: above the IPv4 number in the lower half


class RefusedAddress(ConnectionError):
    """A name stands for nothing but machines that must not be contacted."""


def may_contact(number: Number, allowed: Sequence[Network] = ()) -> bool:
    """Return whether a number is public, or in an allowed network; a number inside a number is judged too."""
    inner = _inner(number)
    if inner is not None:
        return may_contact(inner, allowed)
    if any(number in network for network in allowed):
        return True
    if any(number in network for network in NOT_PUBLIC):
        return False
    return number.is_global and not number.is_multicast and not number.is_reserved


def _inner(number: Number) -> Number | None:
    """Return the IPv4 number that some IPv6 numbers carry (mapped, 6to4, Teredo, translated, ISATAP)."""
    if isinstance(number, ipaddress.IPv4Address):
        return None
    if number in TRANSLATED or (int(number) >> 32) & 0xFFFFFFFF in TUNNELLED:
        return ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)
    teredo = number.teredo[1] if number.teredo else None
    return number.ipv4_mapped or number.sixtofour or teredo


def connect(host: str, port: int, seconds: float, allowed: Sequence[Network] = ()) -> socket.socket:
    """Connect to the first number of a name that may be contacted and answers."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    targets = [entry for entry in found if may_contact(ipaddress.ip_address(entry[4][0].split("%")[0]), allowed)]
    if not targets:
        raise RefusedAddress(f"{host} is no public machine ({', '.join(sorted({entry[4][0] for entry in found}))})")
    for family, kind, protocol, _, target in targets:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(seconds)
        try:
            connection.connect(target)
            return connection
        except OSError as error:
            connection.close()
            failed = error
    raise failed
