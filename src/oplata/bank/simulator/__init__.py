"""The bank, played: signed bodies, the stories of payments, and a seeded stream of both with all its disorder."""
