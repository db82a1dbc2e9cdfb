"""The fixtures of SIP's cores, for their shells."""

from tests.sip.conftest import make_random, random, request_text

__all__ = ["make_random", "random", "request_text"]
