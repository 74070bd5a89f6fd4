"""Those whom the settings have the program report to: a collector of traces, and Sentry."""

from __future__ import annotations

from importlib.metadata import version

from oplata.observability.reports import Reports
from oplata.observability.tracing import Tracing, tracing_to
from oplata.settings.model import Settings


def tracing_of(settings: Settings, role: str) -> Tracing | None:
    """The tracing that is wanted, or None. Raises ``SettingsError`` when the SDK is not installed."""
    if settings.tracing == "off":
        return None
    return tracing_to(
        settings.trace_url,
        sample=settings.trace_sample,
        environment=settings.environment,
        release=version("oplata"),
        role=role,
    )


def reports_of(settings: Settings) -> Reports | None:
    """Where errors are reported, or None. Raises ``SettingsError`` when the SDK is not installed."""
    if settings.sentry_dsn is None:
        return None
    return Reports(settings.sentry_dsn.get_secret_value(), environment=settings.environment, release=version("oplata"))
