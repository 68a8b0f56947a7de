"""Phantoms drawn from shapes."""
