"""Makes `python -m daos` the same as the command `daos`."""

from daos.cli import main

main()
