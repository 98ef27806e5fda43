"""HTTP: what arrives as a request and what leaves as a response; a file a resource in routes."""
