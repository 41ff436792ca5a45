"""Benchmarks that start a stack of their own and print ratios measured in one run."""
