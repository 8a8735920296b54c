"""What methods share that are trained step by step: batches, memory, states put aside."""
