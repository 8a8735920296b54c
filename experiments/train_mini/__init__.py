"""Trains the embedded default model, gpt2-mini."""
