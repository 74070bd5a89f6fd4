"""Reads the change log and tells of each change: to live subscribers, and to the shop's own systems."""
