"""Processes of the local stack."""

import subprocess
import sys

import psutil

from logflume_cli.devstack.processes import Running, is_alive

ENDS_ITS_MAIN_THREAD = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_is_alive_until_its_last_thread_ends():
    """A killed server's main thread may end first; the others still use its files and ports."""
    with subprocess.Popen(
        [sys.executable, "-c", ENDS_ITS_MAIN_THREAD], stdin=subprocess.PIPE
    ) as child:
        process = psutil.Process(child.pid)
        running = Running(child.pid, process.create_time(), 0)
        while process.status() != psutil.STATUS_ZOMBIE:
            assert child.poll() is None
        assert is_alive(running)
        child.kill()
        child.wait()
        assert not is_alive(running)
