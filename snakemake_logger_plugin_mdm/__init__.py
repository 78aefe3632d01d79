"""`snakemake --logger mdm`: Snakemake finds this package by its name; what it shows is in mdm/study/run/view.py."""

import logging
import os
import threading
from dataclasses import dataclass, field

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

STDERR = 2
# Snakemake says these without an event and as mere information, but people want to know.
SPOKEN = ("Nothing to be done", "Terminating processes", "Complete log")


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Options of the plugin on Snakemake's command line."""

    descriptor: int = field(default=STDERR, metadata={"help": "Where to write; `mdm run` hands its own output on."})


class LogHandler(LogHandlerBase):
    """Takes the place of Snakemake's log on stderr; with another descriptor the log stays where it is."""

    writes_to_file = has_formatter = needs_rulegraph = False
    has_filter = True  # Every event is wanted, whatever --quiet leaves out of the log.

    @property
    def writes_to_stream(self) -> bool:
        return self.settings.descriptor == STDERR and not self.common_settings.dryrun

    def __post_init__(self) -> None:
        from mdm.study.run.view import RunView  # Every Snakemake imports this package, only to list its loggers.

        self._view, self._parent, self._over = RunView(self.settings.descriptor), os.getppid(), threading.Event()
        if self.common_settings.dryrun:
            self.setLevel(logging.CRITICAL + 1)  # A dry run is read in Snakemake's own words.
        else:
            threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        while not self._over.wait(1):
            self.handle(logging.makeLogRecord({"event": "tick", "levelno": logging.INFO}))
            if self.settings.descriptor != STDERR and os.getppid() != self._parent:
                self.close()  # `mdm run` was killed: who reads its output waits for the end of it.

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._view.show(record)
            if self.writes_to_stream and (record.levelno >= logging.WARNING or record.getMessage().startswith(SPOKEN)):
                self._view.say(self.format(record))
        except Exception:  # As in all handlers of logging: what is shown must not end what is done.
            self.handleError(record)

    def close(self) -> None:
        self._over.set()
        with self.lock:
            self._view.close()
        super().close()
