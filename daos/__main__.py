"""`python -m daos` is the command `daos`."""

from daos.cli import main

main()
