"""What a network costs: parameters, multiply-adds and milliseconds, beside those of others."""

from crispseg.benchmarking.run import Report, Row, Settings, benchmark
from crispseg.benchmarking.timing import Latency

__all__ = ["Latency", "Report", "Row", "Settings", "benchmark"]
