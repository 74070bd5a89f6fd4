"""Measurements of this project beside others. Nothing here is installed with it."""
