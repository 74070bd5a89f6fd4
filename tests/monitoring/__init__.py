"""``python -m tests.monitoring``: a real Prometheus over real processes; the dashboard shows, and an alert fires."""
