"""Stage 5: the objective, and optax on log-alpha alone."""
