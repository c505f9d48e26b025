"""Print the lowest versions that pyproject.toml allows for the package and its extras, as constraints for pip."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

# Released together, each pinning the other: the test tool on the left follows the dependency on the right.
LOCKSTEP = dict.fromkeys(("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"), "opentelemetry-api")


def floors(dependencies: list[str]) -> dict[str, Version]:
    """The lower bound of each dependency; a ValueError names one that has none."""
    found: dict[str, Version] = {}
    for line in dependencies:
        requirement = Requirement(line)
        bounds = [Version(bound.version) for bound in requirement.specifier if bound.operator in {">=", "==", "~="}]
        if not bounds:
            raise ValueError(f"{line!r} in pyproject.toml has no lower bound")
        found[requirement.name] = max(bounds)
    return found


def constraints(pyproject: Path) -> list[str]:
    """One `name==version` for each dependency, and for what is released in step with one."""
    with pyproject.open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project.get("optional-dependencies", {}).values()
    lowest = floors([*project["dependencies"], *(each for extra in extras for each in extra)])
    lowest |= {follower: lowest[leader] for follower, leader in LOCKSTEP.items() if leader in lowest}
    return [f"{name}=={version}" for name, version in lowest.items()]


if __name__ == "__main__":
    print("\n".join(constraints(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("pyproject.toml"))))
