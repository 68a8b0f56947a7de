"""A run: its folder, its record, its metrics, its studies."""
