"""Records shown: figures, pages, wandb."""
