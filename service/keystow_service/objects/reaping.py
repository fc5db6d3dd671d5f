"""The reaper in the background of a server: a pass over each data centre at the start, and again and again.

Each replica has one. Whatever goes wrong in it is logged, and tried again, and is no trouble to anybody else.
"""

import asyncio
import random
from collections import Counter
from contextlib import aclosing

import structlog

from keystow_service.errors import KeystowError
from keystow_service.objects.names import owner_of
from keystow_service.objects.reap import Fate, Finding, ReapUploads
from keystow_service.ports import ObjectStore

log = structlog.get_logger(__name__)

_RETRY = 900.0  # seconds


class Reaping:
    """See the module."""

    def __init__(self, reap: ReapUploads, interval: float) -> None:
        """``interval`` in seconds from one pass to the next, on average."""
        self._reap = reap
        self._interval = interval

    async def run(self, data_center: str, store: ObjectStore) -> None:
        """Reap until cancelled."""
        while True:
            well = await self._pass(data_center, store)
            pause = self._interval if well else min(self._interval, _RETRY)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - so that replicas come apart

    async def _pass(self, data_center: str, store: ObjectStore) -> bool:
        """Whether all went well."""
        fates: Counter[Fate] = Counter()
        try:
            async with aclosing(self._reap(store)) as findings:
                async for finding in findings:
                    fates[finding.fate] += 1
                    _tell(data_center, finding)
        except KeystowError as error:
            log.warning("reap_failed", data_center=data_center, reason=error.reason, message=error.message)
            return False
        except Exception as error:  # noqa: BLE001 - the server goes on, and so does the reaper
            log.error("reap_failed", data_center=data_center, reason=type(error).__name__)  # noqa: TRY400 - its text may hold secrets
            return False
        if fates[Fate.UNDATED]:
            log.warning("uploads_undated", data_center=data_center, count=fates[Fate.UNDATED])
        return not fates[Fate.FAILED]


def _tell(data_center: str, finding: Finding) -> None:
    upload = finding.upload
    owner = owner_of(upload.name)
    about = {
        "data_center": data_center,
        "tenant_id": owner[0] if owner else "",
        "begun": upload.begun.isoformat(),
    }
    if finding.fate is Fate.REMOVED:
        log.info("upload_reaped", **about)
    elif finding.failure is not None:
        log.warning("upload_not_reaped", reason=finding.failure.reason, **about)
