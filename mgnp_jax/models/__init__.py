"""Stage 2: a checkpoint → its config, weights and tokenizer, and the steps of its layers."""
