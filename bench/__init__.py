"""Benchmarks: each compares alternatives side by side.  `scripts/bench NAME` runs one."""
