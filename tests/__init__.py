"""Tests of GenPrint: contract, golden, invariance, null."""
