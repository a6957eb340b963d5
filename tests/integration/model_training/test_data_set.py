"""Choosing rows to learn from."""

from pathlib import Path

import pytest

from model_training.data_set import chosen_rows, is_excluded

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize(
    ("licence", "excluded"),
    [
        ("CC BY-NC-SA", True),
        ("CC BY-NC-SA 4.0", True),
        ("NC", True),
        ("CC BY 4.0", False),
        ("NIH CXR14 (no restrictions on use; attribution to NIH CC)", False),
        ("INCLUDED", False),
        ("", False),
    ],
)
def test_a_license_is_excluded_by_a_whole_word(licence: str, *, excluded: bool) -> None:
    assert is_excluded(licence, "NC") is excluded


def test_nothing_is_excluded_unasked() -> None:
    assert not is_excluded("CC BY-NC-SA", None)


def test_only_the_train_split_is_learned_from_and_excluded_rows_are_kept_apart(
    tmp_path: Path,
) -> None:
    (tmp_path / "manifest.csv").write_text(
        "file,class,group_id,licence,split\n"
        "a.png,X,1,CC BY 4.0,train\n"
        "b.png,X,2,CC BY-NC 4.0,train\n"
        "c.png,X,3,CC BY 4.0,val\n",
        encoding="utf-8",
    )

    kept, left_out = chosen_rows(tmp_path, "NC")

    assert [row.path.name for row in kept] == ["a.png"]
    assert [row.path.name for row in left_out] == ["b.png"]
