"""The objects of an export in their order, each with its member's name: a page of them at a time."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from keystow_service.envelope.checkpoint import ExportPosition
from keystow_service.model import MAX_PAGE_SIZE, ObjectKey, TenantId
from keystow_service.objects.export.command import ExportCommand, Keys
from keystow_service.objects.export.member_names import ListedNames, member_name
from keystow_service.objects.list import ListObjects

_PAGE_SIZE = MAX_PAGE_SIZE - 1  # List asks for one more, to know whether there is


@dataclass(frozen=True, slots=True)
class Selected:
    """One object to export. ``listed`` is whether it was found, not named by the caller."""

    key: ObjectKey
    member_name: str
    listed: bool
    open_lengths: tuple[int, ...] = ()  # what ListedNames needs to go on after it


async def selected(
    listing: ListObjects, command: ExportCommand, position: ExportPosition
) -> AsyncGenerator[Selected, None]:
    """What comes after ``position``: keys as the caller ordered them, else in List's order. Raises as ListObjects."""
    if isinstance(command.selection, Keys):
        keys = command.selection.keys
        named = frozenset(keys)
        start = keys.index(ObjectKey(position.last_key)) + 1 if position.last_key else 0
        for key in keys[start:]:
            yield Selected(key, member_name(key, named), listed=False)
        return
    names = ListedNames(position.last_key, position.open_lengths)
    start_after, more = position.last_key, True
    while more:
        page = await listing(command.tenant_id, command.selection.text, start_after=start_after, limit=_PAGE_SIZE)
        for info in page.objects:
            name = names.name(info.key)
            yield Selected(info.key, name, listed=True, open_lengths=names.open_lengths())
            start_after = info.key
        more = page.more


async def more_than(limit: int, listing: ListObjects, tenant_id: TenantId, prefix: str) -> bool:
    """Whether the prefix selects more than ``limit`` objects. Raises as ListObjects."""
    count, start_after, more = 0, "", True
    while more and count <= limit:
        page = await listing(tenant_id, prefix, start_after=start_after, limit=_PAGE_SIZE)
        count += len(page.objects)
        start_after, more = page.objects[-1].key if page.objects else "", page.more
    return count > limit
