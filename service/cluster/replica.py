"""What a replica of Ray Serve, front or engine, does as a process."""

from ray import serve

from service.telemetry import log
from service.telemetry.log import LogFormat


def replica_name() -> str:
    """Of this process, as `front-1a2b3c4d`."""
    replica = serve.get_replica_context().replica_id
    return f"{replica.deployment_id.name}-{replica.unique_id}"


def configure_log(format: LogFormat) -> None:
    """Log to Ray's file of this process.

    Not through `sys.stderr`: Ray Serve puts something there that looks up the caller of each line.
    """
    log.configure(format, "sys.__stderr__")
