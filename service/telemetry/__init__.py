"""Logs, metrics and traces, and the configuration of Prometheus and Grafana for them."""
