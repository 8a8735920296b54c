"""Multi-granular node pruning: Hard-Concrete gates on six granularities, trained together."""
