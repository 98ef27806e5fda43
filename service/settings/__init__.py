"""Settings, typed, with their units in their names; each is an environment variable and a flag."""
