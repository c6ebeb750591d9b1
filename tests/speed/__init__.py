"""Timings of the main operations: `make speed`. No assertion on absolute times: machines differ."""
