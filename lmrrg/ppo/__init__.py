"""The mathematics of PPO: pure torch, no Ray, no I/O."""
