"""Property tests draw the same examples on every run: a red build is red again, and a green one stays green."""

from hypothesis import settings

settings.register_profile("oplata", derandomize=True, deadline=None, database=None)
settings.load_profile("oplata")
