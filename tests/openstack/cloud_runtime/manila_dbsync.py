"""manila-manage db sync, for SQLite.

manila's migrations need MySQL or PostgreSQL: the first one opens a second
connection inside alembic's transaction ("database is locked"), later ones
ALTER COLUMN.  manila's own unit tests, which use SQLite, create the tables
from the models; so do we, and stamp the database with the newest revision.

    python -m cloud_runtime.manila_dbsync --config-file manila.conf
"""
import sys

from manila import monkey_patch
monkey_patch.patch()
from oslo_config import cfg                         # noqa: E402
from oslo_log import log                            # noqa: E402
from manila.common import config                    # noqa: E402,F401
from manila.db.migrations.alembic import migration  # noqa: E402
from manila.db.sqlalchemy import api, models        # noqa: E402

log.register_options(cfg.CONF)
cfg.CONF(sys.argv[1:], project="manila")
models.BASE.metadata.create_all(api.get_engine())
migration.stamp("head")
