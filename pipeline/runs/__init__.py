"""From a configuration to a closed record."""
