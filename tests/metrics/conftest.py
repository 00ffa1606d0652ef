"""Helpers of these tests are found from the folders inside as well."""
