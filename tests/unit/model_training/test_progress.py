from io import StringIO

from model_training.progress import Reporter


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_says_when() -> None:
    lines = StringIO()

    Reporter(lines, StringIO()).line("epoch 1: loss 0.5")

    assert lines.getvalue() == "[     0 s] epoch 1: loss 0.5\n"


def test_where_nobody_looks_there_is_no_bar() -> None:
    bar = StringIO()

    with Reporter(StringIO(), bar).bar("epoch 1", total=3, done=0) as advance:
        advance("loss 0.5")

    assert not bar.getvalue()


def test_on_a_terminal_a_bar_shows_how_far_it_is(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    bar = Terminal()

    with Reporter(StringIO(), bar).bar("epoch 1", total=3, done=1) as advance:
        advance("loss 0.5")

    assert "epoch 1" in bar.getvalue()
    assert "2/3" in bar.getvalue()
