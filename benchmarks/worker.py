"""An entrant's process: prepares once, then measures one repeat for each line that comes in on standard input.

Answers go to standard output, a JSON object a line; what libraries print goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterator

from benchmarks import memory


def main(argument: str) -> int:
    """Runs the entrant that `argument` (JSON: function, arguments, threads) names; returns the exit code."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        wanted = json.loads(argument)
        memory.limit_threads(wanted["threads"])
        try:
            module, name = wanted["function"].split(":")
            entrant: Iterator[dict[str, float]] = getattr(importlib.import_module(module), name)(**wanted["arguments"])
            for _ in sys.stdin:
                answers.write(json.dumps(next(entrant)) + "\n")
                answers.flush()
        except Exception as error:
            traceback.print_exc()
            line = (str(error).strip().splitlines() or [""])[0][:300]
            answers.write(json.dumps({"error": f"{type(error).__name__}: {line}"}) + "\n")
            return 1
        # Nothing is taken down: an entrant's threads have nothing left to say, and their end takes seconds.
        answers.write(json.dumps({"peak memory": memory.peak_bytes()}) + "\n")
        answers.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
