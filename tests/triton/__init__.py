"""The same requests to NVIDIA's tritonserver and to this service: `python -m tests.triton`.

Nothing here needs a tritonserver but `__main__.py`, which asks one that is already running.
"""
