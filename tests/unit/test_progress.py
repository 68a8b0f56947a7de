"""Bars go to the console, close when they are full, and stay out of the way of logs."""

import io

from lmrrg.progress import bars_on, console, progress_bar


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_disappears_when_it_is_full():
    stream = Terminal()
    with bars_on(stream):
        assert list(progress_bar(range(3), desc="studies", mininterval=0)) == [0, 1, 2]
    drawn = stream.getvalue()
    assert "studies: 100%" in drawn or "studies:  67%" in drawn
    assert drawn.rstrip(" ").endswith("\r"), "the line is left empty"


def test_a_bar_in_a_log_file_stays_and_is_drawn_seldom():
    stream = io.StringIO()
    with bars_on(stream):
        for _ in progress_bar(range(1000), desc="studies"):
            pass
    assert stream.getvalue().count("studies") <= 3
    assert "1000/1000" in stream.getvalue()


def test_bars_return_to_where_they_were_drawn_before():
    before = console()
    with bars_on(io.StringIO()):
        assert console() is not before
    assert console() is before
