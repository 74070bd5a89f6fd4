"""Moves opaque envelopes durably from the endpoint to the workers; knows nothing of payments."""
