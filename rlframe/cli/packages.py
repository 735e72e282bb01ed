"""`rlframe packages`: fills a folder with the packages of programs, for machines without a network."""

from __future__ import annotations

import argparse

from rlframe.cli import exits
from rlframe.sandbox.failures import PackagesUnavailable
from rlframe.sandbox.packages import Packages


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "rlframe packages",
        description="Installs the packages that programs of the code reward may import. Run this on a machine with a "
        "network and the Python of the workers; set the reward's packages and packages_folder to the same values.",
    )
    parser.add_argument("requirements", nargs="+", help="numpy, sympy==1.14.0, ...: the reward's packages")
    parser.add_argument("--folder", help="a folder that all workers can read (default: rlframe/packages in your cache)")
    options = parser.parse_args(arguments)
    try:
        print(Packages(options.requirements, options.folder).install())
    except ValueError as error:
        exits.complain(str(error))
        return exits.CONFIG
    except PackagesUnavailable as error:
        exits.complain(str(error))
        return exits.FAILED
    return 0
