"""Benchmarks on real servers: `bin/bench` runs the sections; `bench.sizing` runs alone."""
