"""Why each node is in a circuit: causal effects, attention, what nodes write, what drives them."""
