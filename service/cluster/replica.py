"""What a replica of Ray Serve, front or engine, does as a process."""

from ray import serve


def replica_name() -> str:
    """Of this process, as `front-1a2b3c4d`."""
    replica = serve.get_replica_context().replica_id
    return f"{replica.deployment_id.name}-{replica.unique_id}"
