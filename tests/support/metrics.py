"""Samples of a scrape, as Prometheus reads them."""

import httpx
from prometheus_client.parser import text_string_to_metric_families


def samples_of(url: str, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each sample of this name that a service tells at `url`."""
    text = httpx.get(f"{url}/metrics", timeout=60).raise_for_status().text
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    ]
