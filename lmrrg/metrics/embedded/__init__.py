"""RadCliQ's parts from rules: report graph, claims, labels; no download."""
