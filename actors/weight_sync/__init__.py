"""Bring the policy's new weights to the engines; read :mod:`actors.weight_sync.sync` first."""
