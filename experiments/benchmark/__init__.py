"""Times a training step against the published algorithm and the machine's floor."""
