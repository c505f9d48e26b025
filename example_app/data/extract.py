"""Make cars.csv again from the package named in SOURCE.md.

Run it where that package is installed: ``python -m example_app.data.extract``.
"""

from __future__ import annotations

import csv
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PACKAGE = "great-tables"
VERSION = "1.1.0"
SOURCE_FILE = "great_tables/data/03-gtcars.csv"
TARGET = Path(__file__).with_name("cars.csv")

# Our column: the package's column. What the shop does not show (torque, engine speeds) is left out.
COLUMNS = {
    "brand": "mfr",
    "model": "model",
    "year": "year",
    "trim": "trim",
    "body_style": "bdy_style",
    "horsepower": "hp",
    "mpg_city": "mpg_c",
    "mpg_highway": "mpg_h",
    "drivetrain": "drivetrain",
    "transmission": "trsmn",
    "country": "ctry_origin",
    "price_usd": "msrp",
}


def extract(source: Path, target: Path) -> int:
    """Write every row of ``source`` to ``target`` with our columns; return how many there were."""
    with (
        source.open(newline="", encoding="utf-8") as lines,
        target.open("w", newline="", encoding="utf-8") as out,
    ):
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["id", *COLUMNS])
        number = 0
        for number, row in enumerate(csv.DictReader(lines), start=1):
            writer.writerow([number, *(row[column] for column in COLUMNS.values())])
    return number


def main() -> int:
    """Extract from the installed package, if it is the version that SOURCE.md names."""
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        print(f"install {PACKAGE}=={VERSION} first", file=sys.stderr)
        return 1
    if package.version != VERSION:
        print(f"{PACKAGE} {package.version} is installed, {VERSION} is wanted", file=sys.stderr)
        return 1
    rows = extract(Path(str(package.locate_file(SOURCE_FILE))), TARGET)
    print(f"{TARGET.name}: {rows} rows")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
