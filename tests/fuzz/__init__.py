"""A standing fuzzer: `make fuzz`. A few hundred of its inputs are in `make test`.

An input is a function of seed, kind and number, so one that went wrong can be made again, in `tests/`:

    python -m fuzz --kinds masks --start 17 --count 1
"""
