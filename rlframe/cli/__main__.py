"""`python -m rlframe.cli`."""

from rlframe.cli.main import main

main()
