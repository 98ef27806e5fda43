"""What the service and its decoding processes write to each other over a socket.

A message is JSON and then bytes, behind the lengths of both.
"""

import struct

LENGTHS = struct.Struct("<II")  # of the JSON and of the bytes behind it, in bytes
MAX_REPLY_BYTES = 64 * 1024  # of its JSON


def before_content(text: str, content_bytes: int) -> bytes:
    """A whole message but its content."""
    encoded = text.encode()
    return LENGTHS.pack(len(encoded), content_bytes) + encoded
