"""Stage 5: logits and binary masks → what a circuit is worth, and how large it is."""
