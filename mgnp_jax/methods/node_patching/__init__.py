"""Activation patching of single nodes: what each is worth is measured by removing it alone."""
