"""HTTP: how requests come in, and who is refused."""
