"""Benchmarks on real servers: `bin/bench` runs the sections, other modules answer one question."""
