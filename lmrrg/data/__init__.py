"""Reading studies and images."""
