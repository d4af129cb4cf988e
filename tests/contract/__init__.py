"""The public contract: measured from the code before the rebuild, and held by every version since.

These files import stable names only: `crispseg`, `crispseg.cli.main.main`, and what their results offer. `make.py`
measured `frozen/`; to check an older version, set PYTHONPATH to its sources and run
`pytest --confcutdir=tests/contract tests/contract`.
"""
