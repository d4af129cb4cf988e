"""The command line."""

HELP = frozenset({"-h", "--help"})  # flags that ask for help
