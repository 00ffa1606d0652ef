"""Names of the values of one class."""

CLASS = "/class="
"""Ends the name of a value of each class, before the class."""
FEW_CLASSES = 20
"""Up to so many classes their values are rows of the record, and curves; of more there is a table."""
