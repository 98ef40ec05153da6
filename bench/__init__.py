"""Measurements: each compares two things side by side in one run.  `scripts/bench NAME` runs one."""
