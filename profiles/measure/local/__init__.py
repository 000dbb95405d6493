"""Profiling on the machine that Phoneward runs on: what each process does, and what it tells."""
