"""Reads a package's Compose files on the server, before they are sent to any host."""
