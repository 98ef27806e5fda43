"""The HTTP API: requests, responses and middleware; routes/ has one file for each resource."""
