"""What theory knows, one file per family: `references(problem)` of each gives its part, () where it has none."""
