"""Free ports."""

import socket


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port of `address` on which nothing listens."""
    with socket.create_server((address, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
