"""A small router whose answers are agreed upon, for runners of foreign clients."""
