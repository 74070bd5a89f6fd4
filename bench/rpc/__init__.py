"""Requests per second: our remote procedures beside the real ``@trpc/server`` on Node and beside FastAPI."""
