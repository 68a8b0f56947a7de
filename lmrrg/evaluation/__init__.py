"""The final comparison: systems, baselines, results."""
