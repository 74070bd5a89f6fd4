"""Proves that archive, events, projection and change log say the same, and names what does not."""
