"""Mini-batch training of a network under Lightning."""
