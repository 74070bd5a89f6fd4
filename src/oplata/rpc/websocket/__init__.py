"""tRPC over WebSocket."""
