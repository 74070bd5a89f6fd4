"""The procedures behind the door, a noun a file. Each calls what the commands call."""
