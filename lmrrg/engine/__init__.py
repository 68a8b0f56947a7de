"""Generation with vLLM, in PPO, evaluation and serving alike."""
