"""SQLModel's `link_model`, without `from __future__ import annotations`: a class on the table of a many-to-many."""

from sqlmodel import Field, Relationship, SQLModel


class Membership(SQLModel, table=True):
    band_id: int = Field(foreign_key="band.id", primary_key=True)
    player_id: int = Field(foreign_key="player.id", primary_key=True)
    since: int = 0


class Band(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    players: list["Player"] = Relationship(back_populates="bands", link_model=Membership)


class Player(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    bands: list[Band] = Relationship(back_populates="players", link_model=Membership)
