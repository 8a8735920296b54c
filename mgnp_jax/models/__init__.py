"""Stage 2: tokens → node values of both streams → logits, whatever the family."""
