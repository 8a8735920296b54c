"""Stage 4: prompts and masks → logits. The engine: no learning, no metric in it."""
