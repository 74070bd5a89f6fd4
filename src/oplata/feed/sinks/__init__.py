"""The shop's own systems, and how each of them is told of a change."""
