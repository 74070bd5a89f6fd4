"""tRPC over HTTP."""
