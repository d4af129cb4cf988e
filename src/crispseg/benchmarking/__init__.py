"""Cost of networks: parameters, multiply-adds and milliseconds."""

from crispseg.benchmarking.benchmark import Conditions, Report, Row, benchmark
from crispseg.benchmarking.cost import Latency, count_multiply_adds, count_parameters

__all__ = ["Conditions", "Latency", "Report", "Row", "benchmark", "count_multiply_adds", "count_parameters"]
