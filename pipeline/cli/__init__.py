"""The command, and other ways in."""
