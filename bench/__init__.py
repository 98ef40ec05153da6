"""Measurements: each compares things side by side in one run.  `scripts/bench NAME` runs one."""
