"""What operators see: logs, metrics and traces, with Prometheus and Grafana set up for them."""
