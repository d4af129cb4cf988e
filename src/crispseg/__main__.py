"""`python -m crispseg`."""

import sys

from crispseg.cli.main import main

sys.exit(main())
