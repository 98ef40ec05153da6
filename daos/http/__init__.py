"""HTTP and WebSocket: the transport of requests, their limits, and their refusals."""
