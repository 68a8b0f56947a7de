"""How new weights travel from the policy to the engines."""
