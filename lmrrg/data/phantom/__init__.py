"""Chest phantoms with known findings: drawn, or projected from a CT."""
