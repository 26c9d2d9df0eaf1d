"""`python -m rarft.cli`."""

from rarft.cli.main import main

main()
