"""Stage 3: log-alpha → gates → a binary circuit, and what contains what."""
