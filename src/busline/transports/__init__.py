"""The engines' clients: each moves messages and knows nothing of handlers."""
