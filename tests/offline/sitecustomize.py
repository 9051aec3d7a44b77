"""Refuse connections that leave this machine.

Python imports a module of this name at start when its folder is on PYTHONPATH, which cuts off the processes that
tests start. The method is replaced, not the class: ssl and others hold the class since their import.
"""

import functools
import ipaddress
import socket
from collections.abc import Callable


def is_local(address: object) -> bool:
    """Tell whether a socket address stays on this machine: loopback, or not an internet address at all."""
    if not isinstance(address, tuple) or address[0] == "localhost":
        return True
    try:
        return ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
    except ValueError:
        return False


def local_only(connect: Callable) -> Callable:
    """Wrap socket.connect or connect_ex to raise OSError for a remote address."""

    @functools.wraps(connect)
    def checked(self: socket.socket, address: object):
        if not is_local(address):
            raise OSError(f"tests have no network, but something connects to {address}: use a local path or a fake")
        return connect(self, address)

    return checked


CONNECT = {name: local_only(getattr(socket.socket, name)) for name in ("connect", "connect_ex")}

if __name__ == "sitecustomize":
    for name, method in CONNECT.items():
        setattr(socket.socket, name, method)
