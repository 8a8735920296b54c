"""Stage 6: saved results → tables, figures, a progress bar. No model needed."""
