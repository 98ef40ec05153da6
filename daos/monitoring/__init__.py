"""Probes, metrics, and the server's log."""
