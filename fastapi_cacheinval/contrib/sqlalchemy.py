"""sqlalchemy."""
