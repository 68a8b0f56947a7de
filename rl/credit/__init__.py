"""Credit of the sentences of sampled reports."""
