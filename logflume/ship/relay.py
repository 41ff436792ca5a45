"""Runs a command and relays its output: to standard output, and to a function that ships it."""

import errno
import fcntl
import os
import pty
import select
import signal
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# Of one read; a terminal never returns more than 4 KiB.
READ_BYTES = 65536
# How long output of a command that ended is awaited while its children have the terminal open.
DRAIN_SECONDS = 0.2
# More than what the kernel buffers, so that all that the command itself wrote is read.
MAX_LEFT_BYTES = 2 * 1024 * 1024
FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
)

OnOutput = Callable[[bytes], None]


def run_command(command: list[str], on_output: OnOutput, *, has_terminal: bool) -> int:
    """Run a command until it ends; returns its exit code, or 128 + n if signal n ended it."""
    ours, theirs = pty.openpty() if has_terminal else os.pipe()
    if has_terminal:
        _prepare(theirs)
    # Written to by the signals that Python receives, so that `select` returns.
    signals, wake = os.pipe()
    for fd in (signals, wake):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pid = os.fork()
    if not pid:
        _execute(command, theirs, has_terminal=has_terminal)
    os.close(theirs)
    _forward(pid, ours, has_terminal=has_terminal)
    with _raw_input(has_terminal=has_terminal) as typed:
        return _Relay(pid, ours, signals, on_output, typed=typed).run()


def _execute(command: list[str], output: int, *, has_terminal: bool) -> None:
    """Become the command; the reason of a failure is its output, as in a shell."""
    code = 127
    try:
        signal.set_wakeup_fd(-1)
        for one in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(one, signal.SIG_DFL)
        if has_terminal:
            os.setsid()
            fcntl.ioctl(output, termios.TIOCSCTTY, 0)
            if os.isatty(0):
                os.dup2(output, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        code = 127 if error.errno == errno.ENOENT else 126
        os.write(2, f"logflume: {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(code)


def _prepare(terminal: int) -> None:
    """Let the terminal pass output unchanged, and give it the size of ours."""
    mode = termios.tcgetattr(terminal)
    mode[1] &= ~termios.OPOST
    termios.tcsetattr(terminal, termios.TCSANOW, mode)
    _copy_size(terminal)


def _copy_size(terminal: int) -> None:
    for fd in (1, 0, 2):
        if os.isatty(fd):
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
            return


def _forward(pid: int, terminal: int, *, has_terminal: bool) -> None:
    """Pass signals on to the command."""

    def forward(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    for one in FORWARDED:
        # Keys of a terminal that the command shares with us reach it without our help.
        is_shared = one in {signal.SIGINT, signal.SIGQUIT} and not has_terminal and os.isatty(0)
        signal.signal(one, (lambda *_: None) if is_shared else forward)
    if has_terminal:
        signal.signal(signal.SIGWINCH, lambda *_: _copy_size(terminal))


@contextmanager
def _raw_input(*, has_terminal: bool) -> Iterator[bool]:
    """Pass typed keys on unchanged, including those that mean signals; whether there are any."""
    if not (has_terminal and os.isatty(0)):
        yield False
        return
    before = termios.tcgetattr(0)
    mode = termios.tcgetattr(0)
    mode[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
    mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    with suppress(termios.error):
        termios.tcsetattr(0, termios.TCSAFLUSH, mode)
    try:
        yield True
    finally:
        with suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, before)


class _Relay:
    """Copies between our terminal and the command's until it ends."""

    def __init__(
        self, pid: int, output: int, signals: int, on_output: OnOutput, *, typed: bool
    ) -> None:
        self._pid = pid
        self._output = output
        self._signals = signals
        self._on_output = on_output
        self._sources = [signals, output, *([0] if typed else [])]
        self._typed = b""
        self._code: int | None = None
        self._left = MAX_LEFT_BYTES
        os.set_blocking(output, False)

    def run(self) -> int:
        """Copy until the command has ended and all that it wrote is copied; returns its code."""
        while self._code is None or (self._output in self._sources and self._left > 0):
            timeout = None if self._code is None else DRAIN_SECONDS
            sinks = [self._output] if self._typed else []
            ready, writable, _ = select.select(self._sources, sinks, [], timeout)
            if not ready and not writable:
                break  # a process in the background still has the output open
            if self._output in ready:
                self._copy_output()
            if 0 in ready and not self._typed:
                self._typed = os.read(0, READ_BYTES)
                if not self._typed:
                    self._sources.remove(0)
            if self._typed:
                self._copy_input()
            if self._signals in ready:
                os.read(self._signals, READ_BYTES)
                self._wait()
        return self._code or 0

    def _wait(self) -> None:
        pid, status = (0, 0) if self._code is not None else os.waitpid(self._pid, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            self._code = code if code >= 0 else 128 - code

    def _copy_output(self) -> None:
        pieces, size = [], 0
        while size < READ_BYTES:
            try:
                piece = os.read(self._output, READ_BYTES)
            except BlockingIOError:
                break
            except OSError:  # the terminal has no other end any more
                piece = b""
            if not piece:
                self._sources.remove(self._output)
                break
            pieces.append(piece)
            size += len(piece)
        if size:
            self._on_output(b"".join(pieces))
        if self._code is not None:
            self._left -= size

    def _copy_input(self) -> None:
        try:
            self._typed = self._typed[os.write(self._output, self._typed) :]
        except BlockingIOError:
            pass
        except OSError:  # the command has closed its terminal
            self._typed = b""


class StandardOutput:
    """Shows output, until standard output is closed."""

    def __init__(self) -> None:
        self._is_open = True

    def write(self, data: bytes) -> None:
        """Write all of it; waits like any program that writes there."""
        view = memoryview(data)
        while view and self._is_open:
            try:
                view = view[os.write(1, view) :]
            except BlockingIOError:
                select.select([], [1], [])
            except OSError:
                self._is_open = False
