"""The kinds people write."""
