"""Encode images: patch features and their cache, views, the regions of phantoms."""
