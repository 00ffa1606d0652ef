"""Studies of papers."""
