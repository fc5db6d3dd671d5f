"""Servers that the contract suites share."""

import pytest

pytest.register_assert_rewrite("contract.object_store", "contract.resumable_uploads", "contract.store_place")

from servers.moto import moto  # noqa: E402 - after the registration, like all that may import a suite
from servers.postgresql import postgresql  # noqa: E402 - as above
from servers.versitygw import versitygw  # noqa: E402 - as above

__all__ = ["moto", "postgresql", "versitygw"]
