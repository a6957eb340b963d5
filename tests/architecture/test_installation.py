"""What `make demo` and `make up` install is enough for every service of the embedded form."""

import subprocess
import sys

import pytest

from countersign.services import SERVICES
from tests.conftest import CHECKOUT

OF_OTHER_EXTRAS = ("psycopg2", "pika", "matplotlib")
IMPORT_ALL = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({OF_OTHER_EXTRAS}))
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name != "countersign.__main__":  # which runs what it is told
        importlib.import_module(module.name)
"""


@pytest.mark.parametrize(
    "package", ["countersign", *(name for name in SERVICES if "." not in name)]
)
def test_it_is_imported_without_the_packages_of_the_other_extras(package: str) -> None:
    command = [sys.executable, "-c", IMPORT_ALL, package]

    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
