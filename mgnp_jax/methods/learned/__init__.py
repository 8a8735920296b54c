"""Rankings learned through gates: one number for each edge or node, moved by optax step by step.

Edge pruning (arXiv 2406.16778), uniform gradient sampling (arXiv 2409.09951) and mask attribution
(arXiv 2609.25518) share a loop; each is a file that says how gates are drawn and what is minimised.
"""
