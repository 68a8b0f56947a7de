"""Shared by the benchmark scripts."""
