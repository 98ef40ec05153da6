"""What to run: computed before it is run, and without side effects."""
