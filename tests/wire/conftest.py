"""The fixtures of the media's cores, for their shell."""

from tests.media.conftest import new_keys, random, speech

__all__ = ["new_keys", "random", "speech"]
