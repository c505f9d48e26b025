"""The example's rows are a published data set's, and its notice says which."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path

import pytest

from example_app.data.extract import COLUMNS, PACKAGE, SOURCE_FILE, VERSION, extract
from example_app.seed import CARS, read_products

NOTICE = (CARS.parent / "SOURCE.md").read_text(encoding="utf-8")


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(CARS.read_text(encoding="utf-8"))))


def test_every_row_becomes_a_product_at_its_published_price() -> None:
    """The shop starts with all 47 rows, each at the price in the data set and without a discount."""
    products = read_products()
    published = {int(row["id"]): int(row["price_usd"]) for row in rows()}
    assert len(products) == len(published) == 47
    assert {product.id: product.list_price for product in products} == published
    assert all(product.price == product.list_price for product in products)


def test_brands_are_shared_between_their_cars() -> None:
    """Cars of one maker refer to one brand with its country, and brand ids are unique."""
    brands = {product.brand.id: product.brand for product in read_products()}
    names = {row["brand"]: row["country"] for row in rows()}
    assert {brand.name: brand.country for brand in brands.values()} == names
    assert len(brands) == len(names)


def test_stock_follows_the_rule_that_the_notice_states() -> None:
    """Stock is not in the data set: it is what SOURCE.md says it is."""
    assert "`max(1, 600000 // price_usd)`" in NOTICE
    assert {product.stock for product in read_products() if product.list_price > 600_000} == {1}
    assert all(product.stock == max(1, 600_000 // product.list_price) for product in read_products())


def test_the_electric_car_has_no_mileage() -> None:
    """An empty field of the data set is unknown, not zero."""
    (electric,) = [product for product in read_products() if product.brand.name == "Tesla"]
    assert electric.mpg_city is None
    assert electric.mpg_highway is None


def test_the_notice_names_package_version_file_and_licence() -> None:
    """SOURCE.md names what the extract script reads, and the licence's text lies beside it."""
    for fact in (PACKAGE, VERSION, SOURCE_FILE, "MIT", "LICENSE.great-tables", "example_app.data.extract"):
        assert fact in NOTICE
    licence = (CARS.parent / "LICENSE.great-tables").read_text(encoding="utf-8")
    assert licence.startswith("MIT License")
    assert "Posit Software, PBC" in licence


def test_the_notice_has_the_digest_of_the_committed_rows() -> None:
    """Whoever edits cars.csv by hand is found out."""
    assert f"`{hashlib.sha256(CARS.read_bytes()).hexdigest()}`" in NOTICE


def test_extracting_again_gives_the_committed_rows(tmp_path: Path) -> None:
    """A source file rebuilt from our columns, with columns we leave out, extracts to cars.csv byte for byte."""
    source, target = tmp_path / "source.csv", tmp_path / "cars.csv"
    with source.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["trq", *COLUMNS.values()])
        writer.writerows(["1", *(row[column] for column in COLUMNS)] for row in rows())
    assert extract(source, target) == 47
    assert target.read_bytes() == CARS.read_bytes()


@pytest.mark.parametrize("column", ["brand", "model", "body_style", "country"])
def test_no_text_is_empty_or_padded(column: str) -> None:
    """What customers search by has no stray white space."""
    assert all(row[column] and row[column] == row[column].strip() for row in rows())
