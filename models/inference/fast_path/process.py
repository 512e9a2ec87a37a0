"""The process of a trial, watched: what it told before it ended, and why it ended early, if it did."""

import json
import subprocess
import sys
import threading
from collections import deque
from typing import Any

from models.inference.fast_path.sample import Trial

LIMIT_SECONDS = 600.0
"""After so long a trial is ended; what it has measured by then counts. Most of it a compiler takes."""

Measured = dict[str, dict[str, Any]]
"""By path: `ms` and `error`, or `fault`."""


class TrialProcess:
    """One trial. `end` may be called on any thread."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._child: subprocess.Popen[str] | None = None
        self._reason: str | None = None

    def run(self) -> tuple[Measured, str | None]:
        """What it measures; and why it ended before its end, as a part of a sentence."""
        # What lies in the folder that the server was started in is none of its modules.
        python = sys.executable, "-P", "-m"
        command = [*python, "models.inference.fast_path.canary", self._trial.as_json()]
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            return {}, f"its process did not start ({error})"
        with child:
            self._child = child
            if self._reason:
                child.kill()
            return self._watch(child)

    def end(self, reason: str) -> None:
        """End it, and return when what it had of the device is free."""
        self._reason = reason
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def _watch(self, child: subprocess.Popen[str]) -> tuple[Measured, str | None]:
        assert child.stdout is not None and child.stderr is not None  # noqa: S101, PT018 - as asked for
        measured: Measured = {}
        last: deque[str] = deque(maxlen=1)
        errors = threading.Thread(target=last.extend, args=(filter(str.strip, child.stderr),), daemon=True)
        errors.start()
        timer = threading.Timer(LIMIT_SECONDS, self.end, [f"it was ended after {LIMIT_SECONDS:.0f} s"])
        timer.daemon = True
        timer.start()
        for line in child.stdout:
            try:
                told = json.loads(line)
                measured[told.pop("name")] = told
            except (ValueError, KeyError, AttributeError):
                continue
        status = child.wait()
        timer.cancel()
        errors.join(1)
        if self._reason is None and status:
            return measured, f"its process ended with {status} ({''.join(last).strip() or 'no words'})"
        return measured, self._reason
