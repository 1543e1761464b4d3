"""A network of the tests' own: a loopback address that nobody else has, and no way out."""

from __future__ import annotations

import ctypes
import os
import subprocess
from typing import Final

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET


def enter_own_network() -> None:
    """For this thread, and for every thread and process that it starts from now on. Raises OSError where it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK):
        number = ctypes.get_errno()
        raise OSError(number, f"no network namespace: {os.strerror(number)}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
