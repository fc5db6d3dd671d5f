"""A keystow server in the test's event loop: its keys are in the faithful KMS, its objects on the local disk."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from keystow_service.settings import DataCenterSettings
from servers.in_process import Server, serving
from servers.kms.documents import owner_policy
from servers.kms.principals import PROVIDER, PROVIDER_ACCOUNT
from servers.kms.service import FaithfulKms

# The product's data centres.
REGIONS: Mapping[str, str] = MappingProxyType(
    {"us": "us-east-1", "eu": "eu-west-1", "au": "ap-southeast-2", "ca": "ca-central-1", "uk": "eu-west-2"}
)


@asynccontextmanager
async def serving_on_kms(kms: FaithfulKms, data_dir: Path, **settings: Any) -> AsyncIterator[Server]:
    """With a data centre for each region that ``kms`` has, and the credentials of the provider's role."""
    places = {name: _place(kms, region) for name, region in REGIONS.items() if region in kms.endpoints}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in PROVIDER.environment.items():
            environment.setenv(name, value)
        async with serving(data_dir, **{"deployment_id": "tests", "data_centers": places, **settings}) as server:
            yield server


def _place(kms: FaithfulKms, region: str) -> DataCenterSettings:
    provider_key = kms.create_key(region=region, account=PROVIDER_ACCOUNT, policy=owner_policy(PROVIDER_ACCOUNT))
    return DataCenterSettings(region=region, provider_key_arn=provider_key.arn, kms_endpoint=kms.endpoints[region])
