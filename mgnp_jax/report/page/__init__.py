"""The page on which a person sees why each node is in a circuit: one file, nothing fetched."""
