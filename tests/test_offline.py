"""The guard that keeps every other test off the network."""

import socket
import subprocess
import sys

import pytest

REMOTE = ("192.0.2.1", 9)  # a documentation address: nobody answers there
CONNECT = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect({REMOTE})"


def test_a_remote_connection_is_refused():
    """Guards against a test that passes only where the network is up."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as remote,
        pytest.raises(OSError, match="tests have no network"),
    ):
        remote.connect(REMOTE)


def test_a_remote_connection_is_refused_in_a_started_process():
    """Guards against commands under test that escape the guard of the test process."""
    process = subprocess.run([sys.executable, "-c", CONNECT], capture_output=True, text=True)
    assert process.returncode == 1
    assert "tests have no network" in process.stderr


def test_loopback_is_allowed():
    """Guards against a guard so strict that local worker processes and servers fail under test."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
