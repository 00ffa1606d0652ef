"""The layers of a network, measured."""
