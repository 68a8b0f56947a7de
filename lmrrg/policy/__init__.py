"""The trained policy: decoder with value head, batches of reports, updates."""
