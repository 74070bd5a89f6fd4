"""tRPC in Python."""
