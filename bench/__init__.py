"""Benchmarks: each is one command that brings its own Postgres. `docs/benchmarks.md` says how to run and read them."""
