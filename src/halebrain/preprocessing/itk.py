"""What every use of ITK needs here: results that do not depend on the number of threads, and errors of our own."""

from collections.abc import Iterator
from contextlib import contextmanager

from halebrain.core.errors import DataError


@contextmanager
def one_itk_thread() -> Iterator[None]:
    """Keep ITK to one thread: its sums over several are not bit-stable, and at 2 mm one is nearly as quick.

    Raises:
        DataError: ITK gave up within.
    """
    import SimpleITK as sitk  # noqa: N813

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-160:]
        raise DataError("a scan must register and have its bias field fitted", received=reason) from error
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
