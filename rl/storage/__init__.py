"""What a PPO run keeps on storage: training states, their remote copies, dumped rollouts."""
