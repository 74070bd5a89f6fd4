"""Measures how long a change takes from its commit to whoever watches."""
