"""The registry's schema, as a sequence of Alembic revisions that ship with the service.

A revision that was released never changes: a change of the schema is a new file in versions/.
"""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "keystow_service.adapters:migrations")
    return config


def upgrade(connection: Connection) -> None:
    """Bring the schema up to this release, in the caller's transaction.

    Raises alembic.util.CommandError if the database is of a later release.
    """
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def is_current(connection: Connection) -> bool:
    """Whether the schema is exactly this release's."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    return MigrationContext.configure(connection).get_current_revision() == head
