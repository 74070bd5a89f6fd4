"""The files in ``deploy/``: started where this machine can, and held to published schemas where it cannot."""
