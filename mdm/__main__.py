"""`python -m mdm VERB`."""

import signal
import sys

from mdm.cli import main

if __name__ == "__main__":
    status = main()
    if status == 128 + signal.SIGINT:
        # After Ctrl-C, die of it, as shells expect; this also spares the second that it takes to tear torch down.
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    raise SystemExit(status)
