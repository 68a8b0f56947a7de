"""The settings: one typed tree, read from YAML and dotted overrides."""
