"""The parts of `scripts/benchmark.py`: workloads, what runs them, measurement, table."""
