"""Templates of generated pages."""
