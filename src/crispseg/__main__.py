"""`crispseg` and `python -m crispseg`."""

import sys

from crispseg.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
