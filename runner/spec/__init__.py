"""Computes what to run, before it is run and without side effects."""
