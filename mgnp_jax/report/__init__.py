"""Stage 7: results → tables, figures, a progress bar, the run's folder. No model needed."""
