"""`crispseg` and `python -m crispseg`."""

import sys

from crispseg.errors import INTERRUPTED


def main() -> int:
    """Run the command line; an interrupt while it is imported ends in one line too."""
    try:
        from crispseg.cli.main import main

        return main()
    except KeyboardInterrupt:
        print(f"crispseg: {INTERRUPTED}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
