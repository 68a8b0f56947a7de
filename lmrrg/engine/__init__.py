"""Generate reports with vLLM, in PPO, evaluation and serving alike."""
