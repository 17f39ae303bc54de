"""Small adaptations that let unmodified OpenStack services share one process.

Nothing here changes what a service answers; it only replaces the two pieces of
infrastructure that a production cloud would have and this machine should not
need:

* ``install_inproc_messaging``: oslo.messaging's in-memory ``fake://`` driver
  polls every 50 ms.  We make it wake up at once, so an RPC costs microseconds.
* ``install_sqlite_tuning``: several threads write one SQLite file.  WAL mode,
  a long busy timeout, and BEGIN IMMEDIATE for *writer* transactions remove the
  "database is locked" failures (a deferred BEGIN that is upgraded to a write
  fails at once with SQLITE_BUSY, no timeout helps against that).
"""

import threading
import time


def install_inproc_messaging():
    from oslo_messaging._drivers import base, impl_fake

    cond = threading.Condition()
    state = {"gen": 0}
    orig_deliver = impl_fake.FakeExchange.deliver_message

    def deliver_message(self, *args, **kwargs):
        orig_deliver(self, *args, **kwargs)
        with cond:
            state["gen"] += 1
            cond.notify_all()

    @base.batch_poll_helper
    def poll(self, timeout=None):
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._stopped.is_set():
            with cond:
                gen = state["gen"]
            for target in self._targets:
                exchange = self._exchange_manager.get_exchange(target.exchange)
                ctxt, msg, reply_q, requeue = exchange.poll(target, self._pool)
                if msg is not None:
                    return impl_fake.FakeIncomingMessage(
                        ctxt, msg, reply_q, requeue)
            pause = 1.0
            if deadline is not None:
                pause = min(pause, deadline - time.monotonic())
                if pause < 0:
                    return None
            with cond:
                if state["gen"] == gen:
                    cond.wait(pause)
        return None

    impl_fake.FakeExchange.deliver_message = deliver_message
    impl_fake.FakeListener.poll = poll


def install_sqlite_tuning():
    import sqlalchemy
    from sqlalchemy.engine import Engine
    from oslo_db.sqlalchemy import enginefacade

    # oslo.db gives SQLite a NullPool: a third of a request's time went into
    # opening and closing the database (the last close also truncates the WAL).
    from sqlalchemy import pool
    orig_create_engine = sqlalchemy.create_engine

    def create_engine(url, **kw):
        if kw.get("poolclass") is pool.NullPool and \
                str(url).startswith("sqlite"):
            kw.update(poolclass=pool.QueuePool, pool_size=16,
                      max_overflow=200, pool_timeout=60)
            kw.setdefault("connect_args", {})["check_same_thread"] = False
        return orig_create_engine(url, **kw)

    sqlalchemy.create_engine = create_engine

    @sqlalchemy.event.listens_for(Engine, "connect")
    def _pragmas(dbapi_con, _record):
        if type(dbapi_con).__module__.startswith("sqlite3"):
            for p in ("journal_mode=WAL", "synchronous=OFF",
                      "busy_timeout=60000", "temp_store=MEMORY",
                      "cache_size=-16000"):
                dbapi_con.execute("PRAGMA " + p)

    @sqlalchemy.event.listens_for(Engine, "begin", insert=True)
    def _begin(conn):
        if conn.dialect.name != "sqlite" or "in_transaction" in conn.info:
            return
        if conn.get_execution_options().get("sqlite_write"):
            conn.exec_driver_sql("BEGIN IMMEDIATE")
            # oslo.db's own listener runs next and then does nothing
            conn.info["in_transaction"] = True

    factory = enginefacade._TransactionFactory
    orig_session, orig_conn = factory._create_session, factory._create_connection

    def _create_session(self, mode, bind=None):
        if mode is enginefacade._WRITER and not bind:
            engine = self.get_writer_engine()
            if engine.dialect.name == "sqlite":
                bind = engine.execution_options(sqlite_write=True)
        return orig_session(self, mode, bind=bind)

    def _create_connection(self, mode):
        conn = orig_conn(self, mode)
        if mode is enginefacade._WRITER and conn.dialect.name == "sqlite":
            conn = conn.execution_options(sqlite_write=True)
        return conn

    # "writer.independent" inside a writer (manila's share_instance_delete) is a
    # second connection that waits for the lock its own thread holds: let it
    # join the transaction that is open.
    enginefacade._TransactionContextManager.independent = property(
        lambda self: self)

    factory._create_session = _create_session
    factory._create_connection = _create_connection


def install():
    install_inproc_messaging()
    install_sqlite_tuning()


def quiet():
    """Call when the service is up: cinder asks for DeprecationWarnings."""
    import warnings
    warnings.simplefilter("ignore")
