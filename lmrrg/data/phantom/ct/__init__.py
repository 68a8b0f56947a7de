"""Phantoms projected from a chest CT."""
