"""What settings of a head may say; without PyTorch, since `--help` shows it."""

CONSTRAINTS = ("none", "nonnegative", "sphere", "nonnegative_sphere")
"""Of features: none; no negative entry; unit rows; both."""
TEMPERATURE = 0.1
"""Of the supervised contrastive loss by default, as in Khosla et al. (recalled, not checked)."""
