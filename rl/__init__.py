"""Clinical quality reinforcement learning."""
