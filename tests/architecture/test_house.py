"""The rules of the house that neither ruff nor import-linter can hold."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from countersign.services import SERVICES
from tests.conftest import CHECKOUT

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["importlinter"]["root_packages"]
MODULES = sorted(
    path
    for package in PACKAGES
    for path in (CHECKOUT / package).rglob("*.py")
    if "migrations" not in path.parts
)
TESTS = sorted((CHECKOUT / "tests").rglob("test_*.py"))
MOST_LINES = 320
"""Of a module, blank lines not counted: what one can still read at once."""

NAMES_THAT_SAY_NOTHING = {
    *("base", "common", "core", "helper", "helpers", "misc", "ports", "shared", "util", "utils"),
}


def name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def tracked_texts() -> list[Path]:
    """Return what git tracks, or, outside of a clone, nothing."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=False
    )
    paths = [CHECKOUT / part for part in listing.stdout.decode().split("\0") if part]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8000]]


def test_the_rules_look_at_something() -> None:
    assert len(MODULES) > 50
    assert len(TESTS) > 20
    assert {service.partition(".")[0] for service in SERVICES} < {*PACKAGES}


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_can_be_read_at_once(module: Path) -> None:
    lines = [line for line in module.read_text().splitlines() if line.strip()]

    assert len(lines) <= MOST_LINES, "split it by what its parts are"


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_is_named_for_what_it_is(module: Path) -> None:
    parts = {*module.relative_to(CHECKOUT).with_suffix("").parts}

    assert not parts & NAMES_THAT_SAY_NOTHING


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_typed_and_says_what_it_is(package: str) -> None:
    init = CHECKOUT / package / "__init__.py"

    assert (CHECKOUT / package / "py.typed").exists()
    assert ast.get_docstring(ast.parse(init.read_text()))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_started_by_its_name(service: str) -> None:
    assert CHECKOUT.joinpath(*service.split("."), "__main__.py").exists()


def test_mypy_and_the_import_contracts_see_every_package() -> None:
    packages = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")} - {"tests", "bench"}

    assert packages == {*PACKAGES}
    assert packages <= {*PROJECT["tool"]["mypy"]["files"]}


def test_every_import_contract_covers_every_package() -> None:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    layers = [contract for contract in contracts if contract["type"] == "layers"]
    in_layers = {part.strip() for layer in layers[0]["layers"] for part in layer.split("|")}
    technologies = [
        contract
        for contract in contracts
        if contract["type"] == "forbidden" and "ignore_imports" in contract
    ]

    assert in_layers == {*PACKAGES}
    assert technologies
    for contract in technologies:
        assert {*contract["source_modules"]} == {*PACKAGES}, contract["name"]


def pure_modules() -> list[Path]:
    """Return the sources of the contract that says so."""
    [sources] = [
        contract["source_modules"]
        for contract in PROJECT["tool"]["importlinter"]["contracts"]
        if "read no clock" in contract["name"]
    ]
    prefixes = [CHECKOUT.joinpath(*source.split(".")) for source in sources]
    return [module for module in MODULES if {module.with_suffix(""), *module.parents} & {*prefixes}]


@pytest.mark.parametrize("module", pure_modules(), ids=name)
def test_a_pure_module_is_given_its_times_and_ids(module: Path) -> None:
    # import-linter refuses time and random; these hide in modules that are used otherwise.
    given = re.compile(r"(^|\.)(now|utcnow|today|uuid1|uuid4)$")
    calls = [
        f"{node.lineno}: {ast.unparse(node.func)}"
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and given.search(ast.unparse(node.func))
    ]

    assert not calls


def test_no_text_names_a_folder_of_somebody_s_machine() -> None:
    # Written so that this file does not match.
    folder = re.compile(r"(?<![\w.}])/(?:root|Users|home/[a-z]+|work)/\w")
    at_fault = [
        f"{name(path)}:{number}"
        for path in tracked_texts()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if folder.search(line)
    ]

    assert not at_fault


def test_nothing_is_left_to_do_in_a_comment() -> None:
    mark = re.compile(r"#.*\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")
    at_fault = [name(path) for path in [*MODULES, *TESTS] if mark.search(path.read_text())]

    assert not at_fault


@pytest.mark.parametrize(
    "test", [test for test in TESTS if "acceptance" not in test.parts], ids=name
)
def test_a_test_waits_for_a_condition_and_never_sleeps(test: Path) -> None:
    # Acceptance tests let time pass where that is the point: a moment by chance, a broker away.
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(test.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}
    ]

    assert not calls


def test_unit_and_integration_tests_stand_where_their_package_does() -> None:
    folders = {
        path.name
        for tier in ("unit", "integration")
        for path in (CHECKOUT / "tests" / tier).iterdir()
        if path.is_dir() and any(path.glob("*.py"))
    }

    assert folders <= {*PACKAGES, "peers"}


def test_what_is_installed_is_pinned_and_names_no_index() -> None:
    pins = [
        line
        for line in (CHECKOUT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    pinned = {re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() for pin in pins}
    project = PROJECT["project"]
    asked_for = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names = {
        re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement)[0]).lower()  # type: ignore[index]
        for requirement in asked_for
    }

    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin) for pin in pins)
    assert names - {"countersign"} <= pinned


def test_the_command_line_starts_without_a_network_or_a_neural_one() -> None:
    program = "import sys, countersign.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, check=True, text=True
    ).stdout.split()

    assert not {"tensorflow", "weasyprint", "pynetdicom", "pika"} & {*loaded}
