"""A small car showroom: FastAPI, SQLAlchemy and SQLite behind the response cache."""
