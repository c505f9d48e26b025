"""SQLModel's models, without `from __future__ import annotations`: SQLModel reads its annotations while a class is made."""

from sqlmodel import Field, Relationship, SQLModel


class Team(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    heroes: list["Hero"] = Relationship(back_populates="team")

    def __cache_tags__(self) -> list[str]:
        return [f"team:{self.id}", *(f"hero:{hero.id}" for hero in self.heroes)]


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    team_id: int | None = Field(default=None, foreign_key="team.id")
    team: Team | None = Relationship(back_populates="heroes")
