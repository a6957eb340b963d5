"""What `make demo` and `make up` install is enough for every service of the embedded form."""

import subprocess
from pathlib import Path

import pytest

from countersign.services import SERVICES
from tests.conftest import CHECKOUT
from tests.plain_installation import make_plain_installation

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name != "countersign.__main__":  # which runs what it is told
        importlib.import_module(module.name)
"""


@pytest.fixture(scope="module")
def plain_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_plain_installation(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "package", ["countersign", *(name for name in SERVICES if "." not in name)]
)
def test_every_module_is_imported_without_the_packages_of_the_extras(
    plain_python: Path, package: str
) -> None:
    done = subprocess.run(
        [plain_python, "-c", IMPORT_ALL, package],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_the_packages_of_the_extras_are_not_there(plain_python: Path) -> None:
    for name in ("psycopg2", "pika", "matplotlib", "pytest"):
        done = subprocess.run(
            [plain_python, "-c", f"import {name}"], capture_output=True, text=True, check=False
        )
        assert f"No module named '{name}'" in done.stderr
