"""The daemon's connections to PostgreSQL: kept, and opened anew where the server has closed them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from dagster_postgres.event_log import PostgresEventLogStorage

from facecaption_assets.machines.run_queue import keep_connections
from servers import Postgres, postgres_programs

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    server = Postgres(programs)
    yield server
    server.close()


def test_queries_share_a_connection_and_survive_a_restart_of_the_server(postgres: Postgres) -> None:
    address = f"postgresql+psycopg2://dagster:{postgres.password}@127.0.0.1:{postgres.port}/postgres"
    storage, opened = PostgresEventLogStorage(address), list[object]()
    keep_connections(storage)
    keep_connections(storage)  # and again changes nothing
    sa.event.listen(storage._engine, "connect", lambda connection, _: opened.append(connection))
    for number in range(20):
        storage.add_dynamic_partitions("shards", [f"shard-{number:05d}"])
    assert len(storage.get_dynamic_partitions("shards")) == 20
    assert len(opened) == 1
    postgres.stop()
    postgres.start()
    assert len(storage.get_dynamic_partitions("shards")) == 20
    assert len(opened) == 2
    storage.dispose()


def test_a_table_that_is_there_is_looked_up_once_and_one_that_comes_later_is_found(postgres: Postgres) -> None:
    address = f"postgresql+psycopg2://dagster:{postgres.password}@127.0.0.1:{postgres.port}/postgres"
    storage, asked = PostgresEventLogStorage(address), list[str]()
    keep_connections(storage)
    sa.event.listen(storage._engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    assert not storage.has_table("later")
    with storage._connect() as connection:
        connection.execute(sa.text("create table later (id int)"))
    assert storage.has_table("later")
    asked.clear()
    assert storage.has_table("later")
    assert not asked
    storage.dispose()
