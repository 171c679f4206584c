"""The fixed ends of every handler's chain. None imports another."""
