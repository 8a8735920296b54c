"""ACDC: edges removed one after another, from the logits backwards, where that costs little.

Reference: arXiv 2304.14997.
"""
