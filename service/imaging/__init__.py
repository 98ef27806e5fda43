"""Images of requests: from the bytes of an upload to the input of a network.

Everything that one client's image can break happens here, before anything is queued.
"""
