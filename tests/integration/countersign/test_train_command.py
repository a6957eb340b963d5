"""`countersign train` as somebody uses it who has pictures and nothing else."""

import csv
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from countersign.cli import app
from inference_worker.labeled_pictures import read_manifest, read_picture_batch
from inference_worker.model_folder import load_model_folder
from inference_worker.predictor import Predictor
from tests.peers.processes import wait_until

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(1800)]
COUNT, SIDE = 40, 64
LONGEST_S = 800.0


@pytest.fixture
def lesions(test_data: Path, tmp_path: Path) -> Path:
    """Write a table of 40 pictures of skin, as many of each class as go."""
    of_class = defaultdict(list)
    with (test_data / "skin" / "manifest.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            of_class[row["class"]].append(row)
    chosen = [rows[place] for place in range(COUNT) for rows in of_class.values()][:COUNT]
    table = tmp_path / "lesions.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("image_id", "path", "label", "patient_id"))
        for number, row in enumerate(chosen):
            path = test_data.resolve() / "skin" / row["file"]
            writer.writerow((number, path, row["class"], row["group_id"]))
    return table


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "countersign", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_training_that_was_killed_goes_on_and_its_model_is_added_and_classifies(
    lesions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "--data", str(lesions), "--output", "skin-of-ours"]
    command += ["--epochs", "2", "--batch", "8", "--side", str(SIDE)]
    first = start(tmp_path, *command)
    wait_until(
        lambda: (
            list(tmp_path.glob("runs/skin-of-ours/*.checkpoint.npz")) or first.poll() is not None
        ),
        timeout_s=LONGEST_S,
        what="a checkpoint",
    )
    assert first.poll() is None, first.communicate()
    first.kill()
    first.communicate()

    second = start(tmp_path, *command)
    said, complaints = second.communicate(timeout=LONGEST_S)

    assert first.returncode == -signal.SIGKILL
    assert second.returncode == 0, complaints
    assert "final: goes on at epoch" in said
    monkeypatch.setenv("COUNTERSIGN_DATA_DIR", str(tmp_path / "installation"))
    assert CliRunner().invoke(app, ["db", "upgrade"]).exit_code == 0
    added = CliRunner().invoke(app, ["models", "add", str(tmp_path / "skin-of-ours")])
    assert added.exit_code == 0, added.output
    assert "skin-of-ours" in added.output
    model = load_model_folder(tmp_path / "skin-of-ours")
    probabilities = Predictor(model).classify(
        read_picture_batch(read_manifest(lesions)[:3], (SIDE, SIDE, 3))
    )
    assert probabilities.shape == (3, 7)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    card = (tmp_path / "skin-of-ours" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("**Not for clinical use")
    assert "a person must fill in" in card
    assert "in color" in card
