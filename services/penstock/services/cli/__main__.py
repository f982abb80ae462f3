"""`python -m penstock.services.cli`."""

from penstock.services.cli import main

main()
