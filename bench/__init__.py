"""Benchmarks on real servers; `bin/bench` runs them."""
