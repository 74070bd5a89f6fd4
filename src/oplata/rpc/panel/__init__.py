"""A page that shows a router and calls it."""

from oplata.rpc.panel.app import Panel

__all__ = ["Panel"]
