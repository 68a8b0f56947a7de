"""The RadCliQ reward for other trainers."""
