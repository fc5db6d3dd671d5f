"""The object store on S3, and on servers that speak its API.

Conditional writes are never repeated blindly: what is sent once and not answered is reported as such (ports.py,
OutcomeUnknown), so neither botocore nor aiohttp may repeat anything on its own. See docs/adr/0004-s3-retries.md.
"""

from keystow_service.adapters.s3.client import S3Options, open_s3
from keystow_service.adapters.s3.retry import RetryPolicy
from keystow_service.adapters.s3.store import S3Store

__all__ = ["RetryPolicy", "S3Options", "S3Store", "open_s3"]
