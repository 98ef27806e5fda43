"""Real parts and shared inputs for tests: servers, a Redis, networks, pictures, traffic."""
