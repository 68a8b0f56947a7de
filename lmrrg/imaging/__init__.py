"""Radiograph files: reading, decoding in child processes, squares for the image encoder."""
