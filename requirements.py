"""`python requirements.py EXTRA...`: what pyproject.toml requires, a line each, as pip reads it.

Installing from these lines builds no package of the project, which runs from its root anyway.
With `--oldest`, each line names the oldest version that pyproject.toml allows, or for packages
without a lower bound the version in constraints.txt.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parent
_LOWER_BOUND = re.compile(r"([^\[>]+)\S*>=([^,]+)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*", metavar="EXTRA")
    parser.add_argument("--oldest", action="store_true")
    options = parser.parse_args()
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    known = project["optional-dependencies"]
    if unknown := set(options.extras) - set(known):
        parser.error(f"no extra {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    lines = {*project["dependencies"], *(line for extra in options.extras for line in known[extra])}
    print(*sorted(_oldest(lines) if options.oldest else lines), sep="\n")
    return 0


def _oldest(lines: set[str]) -> set[str]:
    """Exact versions instead of ranges."""
    pinned = re.findall(r"^(\S+)==(\S+)$", (_ROOT / "constraints.txt").read_text(), re.MULTILINE)
    bounds = [match.groups() for line in lines if (match := _LOWER_BOUND.match(line))]
    versions = {package.lower(): version for package, version in [*pinned, *bounds]}
    packages = {line.split(">=")[0] for line in lines}  # with the extras they are asked for with
    return {f"{package}=={versions[package.split('[')[0].lower()]}" for package in packages}


if __name__ == "__main__":
    sys.exit(main())
