from typing import Any

from sqlalchemy import Column, Integer, MetaData, Numeric, Table

from fastapi_cacheinval.contrib.outbox import Outbox

product = Table("product", MetaData(), Column("id", Integer, primary_key=True), Column("price", Numeric(10, 2)))

outbox = Outbox()
triggers = outbox.triggers(product, tags=["product:{id}", "products"], dialect="postgresql")


def upgrade(op: Any):  # an Alembic migration, after the one that makes the outbox's table
    for statement in triggers.create:
        op.execute(statement)


def downgrade(op: Any):
    for statement in triggers.drop:
        op.execute(statement)


if __name__ == "__main__":
    print(triggers.script)  # for psql
