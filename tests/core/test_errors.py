import pytest

from halebrain.cli import main
from halebrain.core import errors
from halebrain.core.errors import DataError, HalebrainError


def test_a_message_is_one_line_of_four_parts():
    error = DataError("a scan must be 3-D", received="shape (4,\n 4)", where="a.nii", remedy="give one volume")
    assert str(error) == "a scan must be 3-D, got shape (4, 4) in 'a.nii'; give one volume"


def test_parts_that_are_not_known_are_left_out():
    assert str(DataError("a scan must have varying intensities")) == "a scan must have varying intensities"


def test_what_a_file_holds_cannot_steer_the_terminal():
    error = DataError("a name must show", received="\x1b[31mred\0\ufeff", where="a\udcff.nii", remedy="rename it")
    assert str(error) == r"a name must show, got \x1b[31mred\x00\ufeff in 'a\xff.nii'; rename it"
    assert error.received == "\x1b[31mred\0\ufeff"


def test_what_a_file_holds_is_cut_where_nobody_reads_on():
    assert str(DataError("a cell must be short", received="a" * 400 + "b" * 9000 + "c" * 400)) == (
        f"a cell must be short, got {'a' * 250} … {'c' * 250}"
    )


@pytest.mark.parametrize("kind", HalebrainError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_exit_code_is_documented_and_its_own(kind):
    assert f" {kind.exit_code} " in main.__doc__.replace("\n", " ")
    same = [k for k in vars(errors).values() if getattr(k, "exit_code", None) == kind.exit_code]
    assert same == [kind]
