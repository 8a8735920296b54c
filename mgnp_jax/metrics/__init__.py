"""Stage 4: what a circuit scores, and how large it is. Binary masks only."""
