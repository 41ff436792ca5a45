"""One log on its way: appends output to the spool, and runs the sender in a process of its own."""

import errno
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from logflume.errors import LogflumeError, SettingsError
from logflume.ship.mask import Masker, read_values
from logflume.ship.sender import Sender
from logflume.ship.settings import ShipSettings
from logflume.ship.spool import Spool
from logflume.ship.transport import Transport

SPOOL_IS_FULL = b"\r\n[logflume: the spool is full: output is missing from here]\r\n"
OUTPUT_CONTINUES = b"\r\n[logflume: output continues; %d bytes are missing]\r\n"
# How often a sender that was killed is started again.
RESTARTS = 100
CHECK_SECONDS = 1.0
ROOM_SECONDS = 0.1
NICE = 10

# Opens a transport for the attempt with a uuid.
MakeTransport = Callable[[str], Transport]


def say(text: str) -> None:
    """Print one line on standard error; a terminal in raw mode needs both characters."""
    end = "\r\n" if os.isatty(2) else "\n"
    line = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    with suppress(OSError):
        os.write(2, f"logflume: {line}{end}".encode("utf-8", "replace"))


class Shipment:
    """Ships the output of one command; whatever fails is one line on standard error, once.

    `is_lost` says whether some of the output is not, and will not be, in the log.
    """

    def __init__(
        self,
        settings: ShipSettings,
        spool: Spool,
        masker: Masker,
        transport: MakeTransport,
    ) -> None:
        self.is_lost = False
        self.spool = spool
        self.masker = masker
        self._settings = settings
        self._transport = transport
        self._cut = spool.cut_bytes
        self._is_cutting = False
        self._has_failed = False
        self._restarts = 0
        self._check_at = 0.0
        # The end of this pipe is the end of this process, or of the output.
        self._ends, self._alive = os.pipe()
        self._start()

    def append(self, data: bytes) -> None:
        """Append output; what does not fit is cut, and the log says so. Never raises or waits."""
        self._store(self.masker.feed(data))

    def append_all(self, masked: bytes, stops: Callable[[], bool]) -> None:
        """Append bytes that are already masked; wait for space, but not once `stops`."""
        while not self.spool.has_room(len(masked)) and not stops():
            self._check_sender()
            time.sleep(ROOM_SECONDS)
        self._store(masked)

    def _store(self, data: bytes) -> None:
        if not data:
            return
        before = 0
        try:
            before = self.spool.size
            if self._make_room(len(data)):
                self._write(data)
            else:
                limit = f"LOGFLUME_SHIP__SPOOL_BYTES, {self.spool.max_bytes}"
                self._cut_off(len(data))
                self.fail(f"the spool is full ({limit}): output is missing in the log")
        except OSError as error:
            self._cut_off(max(len(data) - (self.spool.size - before), 1))
            where = f"the spool {self.spool.folder}: {error.strerror}"
            self.fail(f"cannot write to {where}: output is missing in the log")
        self._check_sender()

    def _make_room(self, count: int) -> bool:
        # Once it was full, wait for a whole segment, or the log would consist of notices.
        return self.spool.has_room(count + self._is_cutting * self.spool.meta.segment_bytes)

    def _write(self, data: bytes) -> None:
        if self._is_cutting:
            self._append(OUTPUT_CONTINUES % self._cut)
            self._is_cutting = False
        self._append(data)

    def _append(self, data: bytes) -> None:
        """Append; if the disk is full, release what is confirmed."""
        start = self.spool.size
        while True:
            try:
                return self.spool.append(memoryview(data)[self.spool.size - start :])
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT} or not self.spool.release():
                    raise

    def _cut_off(self, count: int) -> None:
        self._cut += count
        with suppress(OSError):
            self.spool.record_cut(self._cut)
            if not self._is_cutting:
                self._is_cutting = True
                self.spool.append(SPOOL_IS_FULL)

    def fail(self, text: str) -> None:
        """Report that some of the output will not be in the log; only the first time."""
        self.is_lost = True
        if not self._has_failed:
            self._has_failed = True
            say(text)

    def _start(self) -> None:
        """Start the sender; it ends with this process, unless the output ended before."""
        self._sender = os.fork()
        if self._sender:
            return
        code = 1
        try:
            if self._alive >= 0:
                os.close(self._alive)
            self._detach()
            self._send()
            code = 0
        except LogflumeError as error:
            say(f"the log is not delivered: {error}")
        except BaseException as error:  # noqa: BLE001 - it must not return into the caller
            say(f"the log is not delivered: {type(error).__name__}: {error}")
        finally:
            os._exit(code)

    @staticmethod
    def _detach() -> None:
        """Ignore what the terminal sends, and close what only the command should hold open.

        On a busy machine the command comes first.
        """
        os.setpgid(0, 0)
        os.nice(NICE)
        signal.set_wakeup_fd(-1)
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTTOU):
            signal.signal(one, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)

    def _send(self) -> None:
        ended = threading.Event()

        def watch() -> None:
            os.read(self._ends, 1)
            if not self.spool.has_ended:
                os._exit(1)  # killed: the next shipper of this job continues
            ended.set()

        threading.Thread(target=watch, daemon=True).start()
        Sender(
            self.spool,
            self._transport(self.spool.meta.uuid),
            lambda seconds: ended.wait(seconds) if seconds else ended.is_set(),
            flush_seconds=self._settings.flush_seconds,
            give_up_seconds=self._settings.give_up_seconds,
        ).run()
        self.spool.delivered()

    def _check_sender(self) -> None:
        """Start the sender again if it was killed, e.g. for want of memory."""
        now = time.monotonic()
        if now >= self._check_at and self._sender:
            self._check_at = now + CHECK_SECONDS
            self._reap(os.WNOHANG)

    def _reap(self, flags: int) -> None:
        while self._sender:
            pid, status = os.waitpid(self._sender, flags)
            if not pid:
                return
            self._sender = 0
            code = os.waitstatus_to_exitcode(status)
            if code < 0 and self._restarts < RESTARTS:
                self._restarts += 1
                self._start()

    def finish(self) -> bool:
        """End the log and wait until it is delivered; False if some of it is lost.

        A signal ends the wait; what is not delivered stays in the spool.
        """
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.default_int_handler)
        try:
            self._store(self.masker.end())
            self.spool.end()
            alive, self._alive = self._alive, -1
            os.close(alive)
            self._reap(0)
        except KeyboardInterrupt:
            os.kill(self._sender, signal.SIGKILL)
            os.waitpid(self._sender, 0)
            self.fail(f"interrupted: the rest of the log is in {self.spool.folder}")
        except OSError as error:
            self.fail(f"cannot end the log in the spool {self.spool.folder}: {error.strerror}")
        is_delivered = (self.spool.folder / "done").exists()
        self.spool.close(delete=is_delivered)
        return is_delivered and not self.is_lost


def start(
    job_id: int | None, names: Iterable[str] = (), file: Path | None = None
) -> Shipment | None:
    """Start to ship the log of a job and print where it can be read.

    A job without an id gets the one of its token, or a new one. The values of the environment
    variables `names`, the lines of `file` and the token are masked. On failure the reason is
    printed instead, and None returned.
    """
    try:
        settings = ShipSettings.load()
        job_id, transport = _select(settings, job_id)
        token = filter(None, [settings.token.encode()])
        masker = Masker(read_values(names, os.environb, file), unencoded=token)
        owner = hashlib.sha256(settings.token.encode()).hexdigest()[:16]
        spool = Spool(settings.folder, job_id, owner, settings.spool_bytes)
        page = f" {settings.web_url.rstrip('/')}/jobs/{job_id}" if settings.web_url else ""
        say(f"job {job_id}{page}")
        return Shipment(settings, spool, masker, transport)
    except (LogflumeError, OSError, RuntimeError) as error:
        say(f"the log is not shipped: {error}")
        return None


def _select(settings: ShipSettings, job_id: int | None) -> tuple[int, MakeTransport]:
    """The job, and how to open the transport that the settings select."""
    if settings.token:
        from logflume.ship.over_http import HttpTransport, token_job_id  # noqa: PLC0415

        own = token_job_id(settings.token)
        if job_id not in {None, own}:
            raise SettingsError(f"LOGFLUME_SHIP__TOKEN is for job {own}, not for job {job_id}")
        transport = HttpTransport(settings.web_url, settings.token, own)
        return own, lambda _: transport
    if not settings.amqp_url:
        raise SettingsError(
            "set LOGFLUME_WEB__URL and LOGFLUME_SHIP__TOKEN (`logflume token JOB_ID` issues one), "
            "or LOGFLUME_AMQP__URL to send to RabbitMQ"
        )
    # As `logflume publish` numbers its jobs.
    new = time.time_ns() // 1000 if job_id is None else job_id
    return new, lambda uuid: _open_amqp(settings.amqp_url, new, uuid)


def _open_amqp(url: str, job_id: int, uuid: str) -> Transport:
    try:
        from logflume.ship.over_amqp import AmqpTransport  # noqa: PLC0415 - slow, and optional
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"AMQP needs the Python package {error.name}: install logflume[server], or use HTTP"
        ) from error
    return AmqpTransport(url, job_id, uuid)
