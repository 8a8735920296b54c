"""Stage 8: whole jobs. Find a circuit, measure it, leave it on disk; or many of them."""
