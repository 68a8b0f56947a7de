"""Define the LM-RRG network, its prompts and its checkpoints."""
