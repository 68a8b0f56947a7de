"""The LM-RRG network."""
