"""The compiled library, which has the operators in bfloat16."""

from tests.service.native.conftest import library

__all__ = ["library"]
