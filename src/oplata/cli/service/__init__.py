"""What keeps processes running: several of one kind under a parent that heals them, and word to systemd."""
