"""A router written down for TypeScript."""

from oplata.rpc.typescript.emitter import emit

__all__ = ["emit"]
