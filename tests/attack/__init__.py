"""``python -m tests.attack``: what an attacker with the source and no key can do to a real process, tried out."""
