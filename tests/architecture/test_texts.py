"""What the texts say is there: commands, pages, links."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from countersign.cli import app
from tests.conftest import CHECKOUT

TEXTS = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").glob("*.md")])
TARGETS = {*re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)}


def name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def shell_lines(text: Path) -> list[str]:
    """Return the commands of the text's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def product_commands() -> list[list[str]]:
    """Return the words after ``countersign`` of every such command in every text."""
    found = []
    for text in TEXTS:
        for line in shell_lines(text):
            words = shlex.split(line.partition("<")[0])
            for position, word in enumerate(words):
                if Path(word).name == "countersign":
                    found.append(words[position + 1 :])
    return found


def test_there_are_texts_with_commands_to_check() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/architecture.md"} <= {*map(name, TEXTS)}
    assert "make demo" in shell_lines(CHECKOUT / "README.md")
    assert len(product_commands()) >= 5


def test_the_second_sentence_says_what_it_is_not() -> None:
    paragraph = (CHECKOUT / "README.md").read_text().split("\n\n")[1].replace("\n", " ")
    sentences = re.split(r"(?<=\.) ", paragraph)

    assert "not a medical device" in sentences[1]
    assert "not for clinical use" in sentences[1]


@pytest.mark.parametrize("text", TEXTS, ids=name)
def test_every_make_target_that_is_named_exists(text: Path) -> None:
    named = {*re.findall(r"\bmake ([a-z]+)`", text.read_text())} | {
        line.split()[1] for line in shell_lines(text) if line.startswith("make ")
    }

    assert named <= TARGETS


@pytest.mark.parametrize("text", TEXTS, ids=name)
def test_every_linked_page_exists(text: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text.read_text())
    missing = [link for link in links if not (text.parent / link).exists()]

    assert not missing


@pytest.mark.parametrize("words", product_commands(), ids=" ".join)
def test_every_command_that_is_named_exists_with_its_options(words: list[str]) -> None:
    command: list[str] = []
    help_text = ""
    for word in ["", *words]:
        answer = CliRunner().invoke(
            app,
            [*command, *([word] if word else []), "--help"],
            env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        )
        if answer.exit_code or word.startswith("-"):
            break
        help_text = answer.stdout
        command += [word] if word else []
        if "COMMAND [ARGS]" not in help_text:
            break
    options = [word for word in words if word.startswith("--")]

    assert command == words[: len(command)] != []
    assert [option for option in options if option not in help_text] == []


def test_continuous_integration_runs_what_the_readme_tells_to_change_it() -> None:
    script = (CHECKOUT / ".ci" / "run").read_text()

    assert {"make check", "make test"} <= {*shell_lines(CHECKOUT / "README.md")}
    assert re.findall(r"^make \w+", script, re.MULTILINE) == ["make check", "make test"]
