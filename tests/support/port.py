"""Ports that nobody uses yet."""

import socket


def free_port(address: str = "127.0.0.1") -> int:
    """A port of `address` that nobody listens at now."""
    with socket.create_server((address, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
