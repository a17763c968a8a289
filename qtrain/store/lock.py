"""One writer per run folder: a lock that the system releases when its process dies."""

import errno
import os
from pathlib import Path

from qtrain.errors import QtrainError
from qtrain.files import one_line_errors


class Lock:
    """An exclusive advisory lock on a file; raises QtrainError at once if another process holds it."""

    def __init__(self, path: Path) -> None:
        import fcntl

        with one_line_errors("write", path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.read(self._descriptor, 20).decode("ascii", "replace").strip()
                self.release()
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                by = f"process {holder}" if holder.isdigit() else "another process"
                raise QtrainError(
                    f"{path.parent} is in use by {by}: wait for it to end, or choose another folder"
                ) from None
            os.truncate(self._descriptor, 0)
            os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Give the lock back; harmless if that was done before."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
