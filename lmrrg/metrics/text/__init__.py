"""Metrics and conventions that see a report as words."""
