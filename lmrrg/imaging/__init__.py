"""Read radiograph files, decode them in child processes, fit them into the model's square."""
