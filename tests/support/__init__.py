"""Shared parts of tests: servers, a Redis, networks, pictures, request traffic."""
