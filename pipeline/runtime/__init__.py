"""What knows nothing of collapse: files, locks, signals, ranks, progress."""
