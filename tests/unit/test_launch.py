"""What `mdm run` starts can be stopped, however it was started itself."""

import subprocess
import sys

import pytest

PROGRAM = """
import signal, subprocess, sys
from mdm.launch import _stop_politely
if sys.argv[1] == "ignored":  # as a shell does for what it starts in the background of a script
    signal.signal(signal.SIGINT, signal.SIG_IGN)
_stop_politely()
signal.raise_signal(signal.SIGINT)
print("works on", flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=-1)
child.stdout.readline()
child.send_signal(signal.SIGINT)
sys.exit(child.wait() != -signal.SIGINT)
"""


@pytest.mark.parametrize("interrupt", ["ignored", "heard"])
def test_jobs_hear_an_interrupt_that_the_launcher_has_to_ignore(interrupt):
    done = subprocess.run([sys.executable, "-c", PROGRAM, interrupt], capture_output=True, text=True, timeout=60)
    if interrupt == "heard":
        assert "KeyboardInterrupt" in done.stderr and not done.stdout
    else:
        assert done.stdout == "works on\n" and done.returncode == 0, done.stderr
